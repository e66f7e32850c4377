"""What is configured, for people: the plain data of `gateway check --json` as tables."""

import os.path
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from gateway.policy.routes import STATUS_PATTERN


def print_report(document: dict[str, Any]) -> None:
    """Print the document on stdout, and warnings last."""
    console = Console(highlight=False)
    console.print(Text.assemble((relative(document["file"]), "bold"), " is fine."), soft_wrap=True)
    console.print()
    console.print(_parts(document))
    handlers = {handler["type"]: handler for handler in document["worker"]["handlers"]}
    secured = _secured(document["auth"])
    commands = [_command(each, handlers, secured) for each in document["commands"]]
    _section(console, "Commands", commands)
    _section(console, "Channels", [_channels(document)])
    _section(console, "Feeds", [_feeds(document)] if document["feeds"] else [])
    _section(console, "Limits", [_limits(document)])
    for warning in document["warnings"]:
        console.print()
        console.print(Text(f"Warning: {warning}", "yellow"), soft_wrap=True)


def _section(console: Console, title: str, tables: list[Table]) -> None:
    console.print()
    console.print(Text(title if tables else f"{title}: none", "bold"))
    for number, table in enumerate(tables):
        console.print(Padding(table, (1 if number else 0, 0, 0, 2), expand=False))


def _parts(document: dict[str, Any]) -> Table:
    worker = document["worker"]
    pages = [
        ("console at /", document["console"]),
        ("dashboard at /demo/", document["demo"]),
        ("operators at /admin/", document["admin"]),
    ]
    parts = _pairs()
    parts.add_row("Broker", Text(document["broker"]))
    keys = f"keys begin with {document['namespace']}:"
    parts.add_row("", Text(f"{keys}, {document['partitions']} partitions a stream", "dim"))
    parts.add_row("Server", Text(document["server"]))
    served = [page for page, is_on in pages if is_on]
    parts.add_row("", Text(", ".join([*served, document["events"]]), "dim"))
    for number, line in enumerate(_callers(document["auth"])):
        parts.add_row("" if number else "Callers", Text(line))
    parts.add_row("Worker", Text(", ".join(worker["modules"]) or "no handlers"))
    parts.add_row("", Text(f"{worker['concurrency']} commands at a time", "dim"))
    return parts


def _callers(auth: dict[str, Any]) -> list[str]:
    """Who is told apart, and how: a line for each way."""
    lines = []
    for each in auth["jwt"]:
        keys = relative(each["keys"]) if each["keys"].startswith("/") else each["keys"]
        audience, algorithms = " or ".join(each["audience"]), " or ".join(each["algorithms"])
        lines.append(f"{each['issuer']}'s tokens for {audience}: {algorithms}, keys: {keys}")
    if auth["introspection"]:
        lines.append(f"other tokens: {auth['introspection']} is asked")
    if auth["api_keys"]:
        lines.append(f"API keys in {relative(auth['api_keys'])}")
    if auth["anonymous"]:
        lines.append("anybody without credentials" if lines else "anybody")
    return lines


def _secured(auth: dict[str, Any]) -> bool:
    """Whether there is any way to tell one from another: then nobody may what no rule allows."""
    return bool(auth["jwt"] or auth["introspection"] or auth["api_keys"])


def _command(command: dict[str, Any], handlers: dict[str, Any], secured: bool) -> Table:
    pairs = _pairs()
    pairs.add_row("POST", Text.assemble((command["path"], "bold cyan"), f"  {command['type']}"))
    for route in command["routes"]:
        pairs.add_row("stream", Text(f"{route['stream']} when {route['when']}"))
    pairs.add_row("stream", Text(command["stream"] + " otherwise" * bool(command["routes"])))
    if command["key"]:
        pairs.add_row("key", Text(command["key"]))
    pairs.add_row("allow", _rule(command["allow"], secured))
    pairs.add_row("schema", Text(relative(command["schema"]) if command["schema"] else "none"))
    handler = handlers.get(command["type"])
    pairs.add_row("handler", Text(_handler(handler)) if handler else Text("none here", "yellow"))
    return pairs


def _rule(source: str | None, secured: bool) -> Text:
    if source is None:
        return Text("nobody, for want of a rule", "yellow") if secured else Text("anybody")
    return Text(source)


def _handler(handler: dict[str, Any]) -> str:
    attempts = "1 attempt" if handler["attempts"] == 1 else f"{handler['attempts']} attempts"
    limit = f" of up to {duration(handler['timeout'])}" if handler["timeout"] else ""
    where = f"{relative(handler['file'])}:{handler['line']}"
    order = "" if handler["keep_order"] else ", stepping aside between them"
    never = f", none after {' or '.join(handler['never_retry'])}" if handler["never_retry"] else ""
    return f"{handler['name']} in {where}, {attempts}{limit}{order}{never}"


def _pairs() -> Table:
    pairs = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    pairs.add_column(style="bold", no_wrap=True)
    pairs.add_column(overflow="fold")
    return pairs


def _channels(document: dict[str, Any]) -> Table:
    pairs = _pairs()
    for channel in document["channels"]:
        history = channel["history"]
        kept = f"{history['size']} events for {duration(history['seconds'])}" if history else "none"
        pairs.add_row(Text(channel["pattern"]), Text(f"history: {kept}"))
        if channel["pattern"] == STATUS_PATTERN:
            continue  # for its sender alone
        for name, source in _channel_rules(channel, _secured(document["auth"])):
            pairs.add_row("", Text.assemble(f"{name}: ", source))
    return pairs


def _channel_rules(channel: dict[str, Any], secured: bool) -> Iterator[tuple[str, Text]]:
    yield "subscribe", _rule(channel["subscribe"], secured)
    for name, source in (("publish", channel["publish"]), ("history.allow", channel["read"])):
        if source is not None:
            yield name, Text(source)


def _feeds(document: dict[str, Any]) -> Table:
    pairs = _pairs()
    for feed in document["feeds"]:
        when = f" when {feed['when']}" if feed["when"] else ""
        pairs.add_row(Text(feed["type"]), Text(f"→ {', '.join(feed['channels'])}{when}"))
    return pairs


def _limits(document: dict[str, Any]) -> Table:
    pairs = _pairs()
    for limit in document["limits"]:
        pairs.add_row(Text(limit["name"]), Text(_limit(limit)))
    for name, most in document["quotas"].items():
        pairs.add_row(Text(name), Text(f"{most} at a time"))
    proxies = ", ".join(document["trusted_proxies"])
    through = f"; behind proxies at {proxies}" if proxies else ""
    pairs.add_row("each address", Text(f"{document['requests_per_ip']} of a process{through}"))
    return pairs


def _limit(limit: dict[str, Any]) -> str:
    whose = " and ".join(limit["per"])
    types = f" ({', '.join(limit['commands'])})" if limit["commands"] else ""
    told = f"{limit['rate']} {limit['of']}{types} per {whose}, {limit['burst']} at once"
    if queue := limit["queue"]:
        told += f", then {queue['size']} wait for up to {duration(queue['seconds'])}"
    return f"{told}, when {limit['when']}" if limit["when"] else told


def relative(path: str) -> str:
    """The path from here, where that is shorter."""
    return min(path, os.path.relpath(path), key=len) if path else path


def duration(seconds: float) -> str:
    """Seconds as the configuration writes them: `250ms`, `10s`, `1h`, `7d`."""
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds * 1000:g}ms" if seconds < 1 else f"{seconds:g}s"
