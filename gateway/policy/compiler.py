"""From configuration to policy: everything is compiled once, and every problem is found."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.addresses import network
from gateway.broker import address
from gateway.certificates import check_tls
from gateway.channels import MAX_NAME, Pattern
from gateway.config import ChannelConfig, CommandConfig, Config, FeedConfig
from gateway.configfile import read
from gateway.policy import authentication
from gateway.policy.expressions import EvaluationFailed, Expression, InvalidExpression
from gateway.policy.limits import Limits, compile_limits
from gateway.policy.origins import check_origins
from gateway.policy.patterns import PARAMETER, PathPattern, overlap
from gateway.policy.permissions import (
    CHANNEL_RULE_VARIABLES,
    COMMAND_RULE_VARIABLES,
    ChannelRules,
    Permissions,
    compile_rule,
    compile_verdict,
)
from gateway.policy.routes import (
    COMMAND_VARIABLES,
    EVENT_VARIABLES,
    STATUS_PATTERN,
    Channels,
    CommandRoute,
    CommandRoutes,
    Feed,
    Feeds,
)
from gateway.policy.schemas import Schema
from gateway.report import Report, did_you_mean
from gateway.tomllines import KeyPath

OWN_PATHS = frozenset(
    [
        *("ws", "sse", "events", "commands", "channels"),
        *("healthz", "readyz", "metrics", "openapi.json", "asyncapi.json"),
        *("admin", "static", "demo", "console.json", "tickets"),
    ]
)
"""First segments that are the gateway's own."""


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules of a configuration, compiled."""

    commands: CommandRoutes
    channels: Channels
    feeds: Feeds
    permissions: Permissions
    limits: Limits

    @classmethod
    def of(cls, config: Config) -> "Policy":
        """Compile a configuration that was made in Python. Raises `ConfigError`."""
        report = Report()
        policy = compile_policy(config, report)
        report.settle()
        return policy


def load_checked(path: Path, environ: Mapping[str, str] | None = None) -> tuple[Config, Policy]:
    """Return the configuration in `path` and its rules: what every command line starts with.

    Raises:
        ConfigError: with every problem of the file, the environment and the rules.
    """
    config, report = read(path, environ)
    policy = compile_policy(config, report)
    report.settle()
    return config, policy


def compile_policy(config: Config, report: Report) -> Policy:
    """Return the rules that could be compiled; what could not is added to the report."""
    _check_url(config.broker.url, report)
    check_origins(config.server, report)
    check_tls(config.tls, report)
    authentication.check(config.auth, report)
    configs = _channels(config.channels, report)
    channels = Channels(
        configs,
        status_ttl=config.broker.status_ttl,
        conflations=_conflations(config.channels, report),
    )
    commands = [
        route
        for index, command in enumerate(config.commands)
        if (route := _command(command, ("commands", index), report))
    ]
    _check_paths(config.commands, report)
    feeds = [
        _feed(feed, ("feeds", index), channels, report) for index, feed in enumerate(config.feeds)
    ]
    permissions = Permissions(
        _command_rules(config.commands, report),
        _channel_rules(config.channels, report),
        secured=config.auth.configured,
    )
    _check_proxies(config.server.trusted_proxies, report)
    return Policy(
        CommandRoutes(commands),
        channels,
        Feeds(feeds, channels),
        permissions,
        compile_limits(config, report),
    )


def _check_url(url: str | None, report: Report) -> None:
    told = any(problem.message.startswith("broker.url") for problem in report.problems)
    if url is not None and not told:
        with report.guard("broker", "url"):
            address.parse(url)


def _check_proxies(networks: Sequence[str], report: Report) -> None:
    for index, text in enumerate(networks):
        with report.guard("server", "trusted_proxies", index):
            network(text)


def _channels(configs: Iterable[ChannelConfig], report: Report) -> list[ChannelConfig]:
    good: list[tuple[int, ChannelConfig]] = []
    for index, config in enumerate(configs):
        with report.guard("channels", index, "pattern"):
            _check_pattern(config.pattern)
            for other, earlier in good:
                _check_distinct(config.pattern, earlier.pattern, ":", f"channels[{other}]")
            good.append((index, config))
    return [config for _, config in good]


def _conflations(configs: Iterable[ChannelConfig], report: Report) -> dict[str, Expression]:
    found = {}
    for index, config in enumerate(configs):
        if config.conflate is not None:
            with report.guard("channels", index, "conflate"):
                found[config.pattern] = Expression(config.conflate, variables=EVENT_VARIABLES)
    return found


def _check_pattern(text: str) -> None:
    if not 1 <= len(text) <= MAX_NAME:
        raise ValueError(f"expected a pattern of 1 to {MAX_NAME} characters")
    for name in set(Pattern(text).parameters) & set(CHANNEL_RULE_VARIABLES):
        raise ValueError(f"expected another name than {name!r}, which rules know as something else")
    if text.startswith("commands:") or overlap(text, STATUS_PATTERN, ":"):
        raise ValueError(f"{text!r} takes names that begin with commands:, the gateway's own")


def _check_distinct(text: str, earlier: str, separator: str, where: str) -> None:
    """Refuse two patterns between which a name could not decide. A literal one goes first."""
    if text == earlier:
        raise ValueError(f"{text!r} is there already, in {where}")
    both_open = PARAMETER.search(text) and PARAMETER.search(earlier)
    if both_open and overlap(text, earlier, separator):
        raise ValueError(f"{text!r} is ambiguous: {earlier!r} in {where} takes the same names")


def _command(config: CommandConfig, at: KeyPath, report: Report) -> CommandRoute | None:
    pattern: PathPattern | None = None
    schema: Schema | None = None
    key: Expression | None = None
    with report.guard(*at, "path"):
        pattern = PathPattern(config.path)
    if config.schema:
        with report.guard(*at, "schema"):
            schema = Schema.load(config.schema)
    if config.key is not None:
        with report.guard(*at, "key"):
            key = _of_path(compile_rule(config.key, variables=COMMAND_VARIABLES), pattern)
    routes = []
    for index, route in enumerate(config.routes):
        with report.guard(*at, "routes", index, "when"):
            when = compile_verdict(route.when, variables=COMMAND_VARIABLES)
            routes.append((_of_path(when, pattern), route))
    if pattern is None:
        return None
    return CommandRoute(config, pattern=pattern, schema=schema, key=key, routes=routes)


def _command_rules(configs: Sequence[CommandConfig], report: Report) -> dict[str, Expression]:
    rules = {}
    for index, config in enumerate(configs):
        if config.allow is not None:
            with report.guard("commands", index, "allow"):
                rule = compile_verdict(config.allow, variables=COMMAND_RULE_VARIABLES)
                rules[config.path] = _of_path(rule, _path_pattern(config.path))
    return rules


def _path_pattern(path: str) -> PathPattern | None:
    """Return the pattern of a path, unless it is none: that is reported where it is needed."""
    try:
        return PathPattern(path)
    except ValueError:
        return None


def _channel_rules(configs: Sequence[ChannelConfig], report: Report) -> dict[str, ChannelRules]:
    rules = {}
    for index, config in enumerate(configs):
        at: KeyPath = ("channels", index)
        rules[config.pattern] = ChannelRules(
            subscribe=_channel_rule(config.pattern, config.subscribe, (*at, "subscribe"), report),
            publish=_channel_rule(config.pattern, config.publish, (*at, "publish"), report),
            history=_channel_rule(
                config.pattern,
                config.history.allow if config.history else None,
                (*at, "history", "allow"),
                report,
            ),
        )
    return rules


def _channel_rule(
    pattern: str, source: str | None, at: KeyPath, report: Report
) -> Expression | None:
    if source is not None:
        with report.guard(*at):
            parameters = PARAMETER.findall(pattern)
            return compile_verdict(source, variables=(*CHANNEL_RULE_VARIABLES, *parameters))
    return None


def _of_path(expression: Expression, pattern: PathPattern | None) -> Expression:
    """Return an expression if the path has what it looks at. Raises `InvalidExpression`."""
    if pattern:
        mentioned = expression.mentions.get("path") or frozenset()
        for name in sorted(mentioned.difference(pattern.parameters)):
            hint = did_you_mean(name, pattern.parameters)
            raise InvalidExpression(f"the path {pattern.text} has no parameter {name!r}{hint}")
    return expression


def _check_paths(configs: Collection[CommandConfig], report: Report) -> None:
    earlier: list[tuple[int, str]] = []
    for index, config in enumerate(configs):
        with report.guard("commands", index, "path"):
            _check_own(config.path)
            for other, path in earlier:
                _check_distinct(config.path, path, "/", f"commands[{other}]")
        earlier.append((index, config.path))


def _check_own(path: str) -> None:
    first = path.split("/")[1] if path.startswith("/") else ""
    if first in OWN_PATHS:
        raise ValueError(f"paths below /{first} are the gateway's own")
    if PARAMETER.fullmatch(first):
        raise ValueError(f"expected a literal first segment: {path!r} takes /events as well")


def _feed(config: FeedConfig, at: KeyPath, channels: Channels, report: Report) -> Feed:
    expressions = []
    for index, source in enumerate(config.channels):
        with report.guard(*at, "channels", index):
            expression = Expression(source, variables=EVENT_VARIABLES)
            _check_constant(expression, channels)
            expressions.append(expression)
    when = None
    if config.when is not None:
        with report.guard(*at, "when"):
            when = Expression(config.when, variables=EVENT_VARIABLES)
    return Feed(config, channels=expressions, when=when)


def _check_constant(expression: Expression, channels: Channels) -> None:
    """A name that does not depend on the event can be checked before there is one."""
    if expression.mentions:
        return
    try:
        names = expression.texts({})
    except EvaluationFailed as error:
        raise InvalidExpression(str(error)) from None
    for name in names:
        if channels.match(name) is None:
            hint = did_you_mean(name, (config.pattern for config in channels.configs))
            raise InvalidExpression(f"no [[channels]] pattern covers {name!r}{hint}")
