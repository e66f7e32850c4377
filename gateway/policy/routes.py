"""Routes: command → stream and key; event → channels. Decisions only, no sockets."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

from gateway.channels import Pattern, check_name
from gateway.commands import Durability, Priority
from gateway.config import ChannelConfig, CommandConfig, FeedConfig, HistoryConfig, RouteConfig
from gateway.errors import BadRequest, Unroutable
from gateway.policy.expressions import EvaluationFailed, Expression
from gateway.policy.patterns import PathPattern
from gateway.policy.schemas import Schema
from gateway.settings import Seconds

T = TypeVar("T")

COMMAND_VARIABLES = ("data", "path")
EVENT_VARIABLES = (
    "correlationid",
    "data",
    "event",
    "id",
    "source",
    "subject",
    "time",
    "type",
)

MAX_KEY = 1024
"""Characters. A key travels with its command and its events."""

STATUS_PATTERN = "commands:{id}"
"""The built-in channels: each command has one, on which its life is pushed."""

STATUS_HISTORY_SIZE = 20
"""Events: accepted, started, a dozen retries, the end."""

STATUS_HISTORY_TTL = Seconds(3600)

CACHED = 4096
"""Names whose decision is remembered. They come from strangers, so there is a bound."""


def merge_parameters(data: Any, parameters: Mapping[str, str]) -> Any:
    """Return `data` with the path's parameters as members; the same object if nothing is added.

    A missing body counts as an empty object.

    Raises:
        Unroutable: if the body says something else than the path, or is no object.
    """
    if not parameters:
        return data
    if not (data is None or isinstance(data, dict)):
        raise Unroutable(
            f"expected an object, of which {', '.join(parameters)} of the path "
            f"become members, but got {type(data).__name__}"
        )
    body = data or {}
    for name, value in parameters.items():
        if body.get(name, value) != value:
            raise Unroutable(
                f"expected {name!r} to be {value!r} as in the path but got {body[name]!r:.80}"
            )
    return data if parameters.keys() <= body.keys() else {**body, **parameters}


class Destination(NamedTuple):
    """Where a command goes, and how."""

    stream: str
    priority: Priority
    durability: Durability


class CommandRoute:
    """One configured command: what it must look like and where it goes."""

    __slots__ = ("_destinations", "_key", "_own", "config", "pattern", "schema")

    def __init__(
        self,
        config: CommandConfig,
        *,
        pattern: PathPattern,
        schema: Schema | None = None,
        key: Expression | None = None,
        routes: Sequence[tuple[Expression, RouteConfig]] = (),
    ) -> None:
        self.config = config
        self.pattern = pattern
        self.schema = schema
        self._key = key
        self._own = Destination(config.stream, config.priority, config.durability)
        self._destinations = [
            (
                when,
                Destination(
                    route.stream,
                    route.priority or config.priority,
                    route.durability or config.durability,
                ),
            )
            for when, route in routes
        ]

    @property
    def path(self) -> str:
        return self.config.path

    @property
    def type(self) -> str:
        return self.config.type

    @property
    def streams(self) -> tuple[str, ...]:
        """Every stream that its commands can go to."""
        return tuple(dict.fromkeys(each.stream for each in self._all()))

    @property
    def durabilities(self) -> set[Durability]:
        """All that its commands can be promised."""
        return {each.durability for each in self._all()}

    def _all(self) -> list[Destination]:
        return [self._own, *(destination for _, destination in self._destinations)]

    def validate(self, data: Any) -> None:
        """Return if the data matches the schema, or if there is none. Raises `ValidationFailed`."""
        if self.schema:
            self.schema.validate(data)

    def destination(self, data: Any, parameters: Mapping[str, str]) -> Destination:
        """Return where the first route that holds leads to, or the command's own destination.

        Raises:
            Unroutable: if a condition cannot be decided for this data.
        """
        for when, destination in self._destinations:
            if _decided(when.boolean, {"data": data, "path": parameters}):
                return destination
        return self._own

    def key_for(self, data: Any, parameters: Mapping[str, str]) -> str | None:
        """Return the key, or None if the command is configured without one.

        Raises:
            Unroutable: if the data has no such key, or it is neither a string nor a number.
        """
        if self._key is None:
            return None
        key = _key_text(_decided(self._key.value, {"data": data, "path": parameters}))
        if not key or len(key) > MAX_KEY:
            raise Unroutable(
                f"expected the key {self._key.source} to be a number or a string of 1 to {MAX_KEY} "
                "characters"
            )
        return key


class CommandRoutes:
    """All configured commands. A literal path goes before one with parameters."""

    def __init__(self, routes: Iterable[CommandRoute]) -> None:
        self._routes = tuple(sorted(routes, key=lambda route: bool(route.pattern.parameters)))
        self._literal = {r.path: r for r in self._routes if not r.pattern.parameters}

    def __iter__(self) -> Iterator[CommandRoute]:
        return iter(self._routes)

    @property
    def durabilities(self) -> set[Durability]:
        """All that any command can be promised."""
        return {each for route in self._routes for each in route.durabilities}

    def match(self, path: str) -> tuple[CommandRoute, dict[str, str]] | None:
        """Return the route of a percent-decoded path, and the path's parameters."""
        literal = self._literal.get(path)
        if literal:
            return literal, {}
        for route in self._routes[len(self._literal) :]:
            parameters = route.pattern.match(path)
            if parameters is not None:
                return route, parameters
        return None

    def streams_of(self, command_type: str) -> tuple[str, ...]:
        """Return every stream in which commands of this type can be."""
        streams = (route.streams for route in self._routes if route.type == command_type)
        return tuple(dict.fromkeys(name for names in streams for name in names))

    @property
    def streams(self) -> tuple[str, ...]:
        """Every stream that there is."""
        return tuple(dict.fromkeys(name for route in self._routes for name in route.streams))


class ChannelMatch(NamedTuple):
    """What is configured for a channel, and the parameters in its name."""

    config: ChannelConfig
    parameters: Mapping[str, str]


class Channels:
    """All channels that can be subscribed to, the built-in ones of commands included."""

    def __init__(
        self,
        configs: Iterable[ChannelConfig],
        *,
        status_ttl: Seconds,
        conflations: Mapping[str, Expression] | None = None,
    ) -> None:
        """Compile the patterns. `conflations` are by pattern. Raises `ValueError`."""
        self._conflations = conflations or {}
        history = HistoryConfig(
            size=STATUS_HISTORY_SIZE, ttl=min(Seconds(status_ttl), STATUS_HISTORY_TTL)
        )
        self.configs = (*configs, ChannelConfig(pattern=STATUS_PATTERN, history=history))
        patterns = [(Pattern(config.pattern), config) for config in self.configs]
        self._literal = {p.text: ChannelMatch(c, {}) for p, c in patterns if not p.parameters}
        self._patterns = [(p, c) for p, c in patterns if p.parameters]
        self._search = lru_cache(CACHED)(self._find)

    def match(self, name: str) -> ChannelMatch | None:
        """Return what covers a channel, or None: then nobody can subscribe to it."""
        return self._literal.get(name) or self._search(name)

    def conflation_key(self, match: ChannelMatch, event: Mapping[str, Any]) -> str:
        """Return what makes an event the same as later ones of its channel; empty for nothing.

        Raises:
            Unroutable: if the event has no such value, or it is neither a string nor a number.
        """
        expression = self._conflations.get(match.config.pattern)
        if expression is None:
            return ""
        key = _key_text(_decided(expression.value, _event_variables(event)))
        if not key or len(key) > MAX_KEY:
            raise Unroutable(
                f"expected {expression.source}, by which {match.config.pattern} is conflated, to "
                f"be a number or a string of 1 to {MAX_KEY} characters"
            )
        return key

    def _find(self, name: str) -> ChannelMatch | None:
        try:
            check_name(name)
        except BadRequest:
            return None
        for pattern, config in self._patterns:
            parameters = pattern.match(name)
            if parameters is not None:
                return ChannelMatch(config, parameters)
        return None


class Feed:
    """One configured feed: the channels of the events of some types."""

    __slots__ = ("_channels", "_when", "config")

    def __init__(
        self, config: FeedConfig, *, channels: Sequence[Expression], when: Expression | None = None
    ) -> None:
        self.config = config
        self._channels = tuple(channels)
        self._when = when

    def takes(self, event_type: str) -> bool:
        """Return whether it is for events of this type."""
        wanted = self.config.type
        if wanted.endswith("*"):
            return event_type.startswith(wanted[:-1])
        return event_type == wanted

    def names(self, variables: Mapping[str, Any]) -> Iterator[str]:
        """Give the names of the channels, unchecked. Raises `Unroutable`."""
        if self._when is None or _decided(self._when.boolean, variables):
            for expression in self._channels:
                yield from _decided(expression.texts, variables)


class Feeds:
    """All configured feeds: which channels an event goes to."""

    def __init__(self, feeds: Iterable[Feed], channels: Channels) -> None:
        self._feeds = tuple(feeds)
        self._channels = channels
        self._of_type = lru_cache(CACHED)(self._find)

    def channels_for(self, event: Mapping[str, Any]) -> list[str]:
        """Return the channels of an event, in the order of the feeds, each once.

        `event` holds the CloudEvents attributes, and `data` as JSON gives it. If it has the
        attribute `channel`, that is where it goes, and nowhere else.

        Raises:
            Unroutable: if an expression has no value for this event, or gives a name that no
                configured channel has.
        """
        named = event.get("channel")
        if named is not None:
            return [self._checked(named)]
        names: dict[str, None] = {}
        feeds = self._of_type(event["type"])
        if feeds:
            variables = _event_variables(event)
            for feed in feeds:
                names.update(dict.fromkeys(feed.names(variables)))
        return [self._checked(name) for name in names]

    def _checked(self, name: str) -> str:
        if self._channels.match(name) is None:
            raise Unroutable(
                f"the event goes to the channel {name[:80]!r}, which no configured pattern covers"
            )
        return name

    def _find(self, event_type: str) -> tuple[Feed, ...]:
        return tuple(feed for feed in self._feeds if feed.takes(event_type))


def _event_variables(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return what feeds see: what the event does not have is null."""
    variables = {name: event.get(name) for name in EVENT_VARIABLES}
    variables["event"] = event if type(event) is dict else dict(event)
    return variables


def _decided(evaluate: Callable[[Mapping[str, Any]], T], variables: Mapping[str, Any]) -> T:
    try:
        return evaluate(variables)
    except EvaluationFailed as error:
        raise Unroutable(str(error)) from None


def _key_text(value: Any) -> str | None:
    """Return a key as text: 1 and 1.0 are one key, as they are equal in JSON and in CEL."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return None
