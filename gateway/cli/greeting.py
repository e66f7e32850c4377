"""What is printed when the gateway is ready: its addresses, and commands to try that work."""

import re
import shlex
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import msgspec
from rich.text import Text

from gateway import __version__
from gateway.cli.report import relative
from gateway.config import CommandConfig, Config
from gateway.policy import Policy, summary

JSON = "Content-Type: application/json"


def title(config: Config, policy: Policy) -> str:
    """What runs, and where its log is. No password is in it."""
    broker = summary(config, policy)["broker"]
    if config.broker.url is None:
        broker = relative(str(config.broker.data_dir))
    return f"{relative(str(config.file))}, with its log in {broker}"


def greeting(config: Config, url: str, title: str) -> Text:
    """Return the text for a gateway that serves at `url`. No line of it may be wrapped."""
    text = Text.assemble((f"Push gateway {__version__}", "bold"), f"  {title}\n\n")
    for name, address in _addresses(config, url):
        text.append(f"  {name:<11}", "dim").append(f"{address}\n", "cyan")
    lines = list(curls(config, url))
    if lines:
        text.append("\nTry it in another terminal:\n\n", "dim")
    for comment, command in lines:
        text.append(f"  # {comment}\n", "dim").append(f"  {command}\n")
    return text.append("\nCtrl-C stops it.", "dim")


def _addresses(config: Config, url: str) -> Iterator[tuple[str, str]]:
    if config.server.console:
        yield "Console", f"{url}/"
    if config.server.demo:
        yield "Dashboard", f"{url}/demo/"
    yield "WebSocket", f"{url.replace('http', 'ws', 1)}/ws"
    yield "SSE", f"{url}/sse"


def curls(config: Config, url: str) -> Iterator[tuple[str, str]]:
    """Yield up to three commands, each with what it does, made of what is configured."""
    command = _simplest(config)
    data = example_data(command) if command else {}
    channel = _example_channel(config, data)
    shown = ' -H "Authorization: Bearer $TOKEN"' if config.auth.configured else ""
    if channel:
        follow = f"curl -N {shlex.quote(f'{url}/sse?channel={quote(channel)}')}{shown}"
        yield f"follow {channel}", follow
    if command:
        body = shlex.quote(msgspec.json.encode(data).decode())
        address = shlex.quote(url + quote(_fill(command.path, data)))
        post = f"curl {address} -H {shlex.quote(JSON)}{shown}"
        yield f"post a command: {command.type}", f"{post} -d {body}"
        yield "post one and wait for its outcome", f"{post} -H 'Prefer: wait=5' -d {body}"


def _simplest(config: Config) -> CommandConfig | None:
    """The command with the fewest parameters in its path: the first of those."""
    return min(config.commands, key=lambda command: command.path.count("{"), default=None)


def example_data(command: CommandConfig) -> Any:
    """The first example in the command's schema, or an empty object."""
    if command.schema is None:
        return {}
    schema = msgspec.json.decode(command.schema.read_bytes())
    examples = schema.get("examples") if isinstance(schema, dict) else None
    return examples[0] if isinstance(examples, list) and examples else {}


def _example_channel(config: Config, data: Any) -> str | None:
    """The first channel without parameters, or the first that the example's data can fill."""
    patterns = sorted((each.pattern for each in config.channels), key=lambda p: p.count("{"))
    return _fill(patterns[0], data) if patterns else None


def _fill(pattern: str, data: Any) -> str:
    values = data if isinstance(data, dict) else {}
    return re.sub(r"\{(\w+)\}", lambda found: str(values.get(found[1], "1")), pattern)
