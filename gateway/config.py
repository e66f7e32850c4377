"""Configuration: what `gateway.toml` may say, as immutable structures.

A name that no structure knows is reported as a mistake, never passed over. What a value may be
stands beside it, as an annotation that `configfile.py` reads.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Self

import msgspec
from msgspec import Meta

from gateway.commands import Durability, Priority


class Seconds(float):
    """A duration: `"250ms"`, `"30s"`, `"10m"`, `"1h"`, `"7d"`, or a number of seconds."""

    MAX = 3650 * 86_400
    """Ten years. In milliseconds it stays far below the 64 bits that Redis has for a time."""

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read a value of the file. Raises `ValueError`."""
        seconds: float | None = None
        if isinstance(value, str):
            seconds = _measure(value, _TIMES)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            seconds = value
        if seconds is None or not 0 <= seconds <= cls.MAX:  # also refuses nan
            raise ValueError('expected a duration such as "250ms", "30s", "10m", "1h" or "7d"')
        return cls(seconds)


class Bytes(int):
    """A size: `"64KiB"`, `"1MiB"`, `"10MB"`, or a number of bytes."""

    MAX = 1 << 40
    """A tebibyte: more is a slip of the pen."""

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read a value of the file. Raises `ValueError`."""
        size: float | None = None
        if isinstance(value, str):
            size = _measure(value, _SIZES)
        elif isinstance(value, int) and not isinstance(value, bool):
            size = value
        if size is None or not 0 <= size <= cls.MAX or size % 1:
            raise ValueError('expected a size such as "64KiB", "1MiB", "10MB" or a number of bytes')
        return cls(size)


_TIMES = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_SIZES = {
    "B": 1,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KiB": 1 << 10,
    "MiB": 1 << 20,
    "GiB": 1 << 30,
}
_MEASURE = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?) ?([A-Za-z]{0,3})", re.ASCII)


def _measure(text: str, units: Mapping[str, float]) -> float | None:
    found = _MEASURE.fullmatch(text)
    if not found:
        return None
    number, unit = found.groups()
    if not unit:  # a plain number in an environment variable
        return float(number)
    return float(number) * units[unit] if unit in units else None


def _text(pattern: str, description: str, *, secret: bool = False) -> Meta:
    """What a text must look like. A secret one is not repeated in the report of problems."""
    return Meta(pattern=rf"^(?:{pattern})\Z", description=description, extra={"secret": secret})


Period = Annotated[Seconds, Meta(extra={"positive": True})]
Size = Annotated[Bytes, Meta(extra={"positive": True})]
Count = Annotated[int, Meta(ge=1)]
BrokerUrl = Annotated[
    str,
    _text(
        r"(redis|rediss|unix|redis\+sentinel|rediss\+sentinel)://\S+",
        "a URL that begins with redis://, rediss://, unix:// or redis+sentinel://",
        secret=True,
    ),
]
Namespace = Annotated[
    str, _text(r"[A-Za-z0-9_.:-]{1,64}", "a namespace of 1 to 64 letters, digits and _.:-")
]
StreamName = Annotated[
    str, _text(r"[A-Za-z0-9_.-]{1,128}", "a stream name of 1 to 128 letters, digits and _.-")
]
"""It is part of keys, where colons and braces have meanings."""
TypeName = Annotated[
    str, _text(r"[!-)+-~]{1,255}", "a type of 1 to 255 visible characters such as order.place")
]
FeedType = Annotated[
    str,
    _text(
        r"\*|[!-)+-~]{1,255}?(\.\*)?",
        "an event type such as order.placed, or a prefix of one such as order.*",
    ),
]
Host = Annotated[str, _text(r"\S+", "a host name or an address")]
ModuleName = Annotated[
    str,
    _text(
        r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*",
        "the name of a Python module such as handlers or shop.handlers",
    ),
]
Token = Annotated[
    str,
    _text(r"[!-+\--~]{1,4096}", "a token of visible characters without a comma", secret=True),
]
Rate = Annotated[float, Meta(gt=0, le=1000)]
"""Times a second."""
LogLevel = Annotated[str, _text("debug|info|warning|error", "debug, info, warning or error")]
LogFormat = Annotated[str, _text("text|json", "text or json")]
Expressions = Annotated[Sequence[str], Meta(min_length=1)]


class BrokerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[broker]`: the log."""

    url: BrokerUrl | None = None
    """`redis://`, `rediss://` (TLS), `unix://`, or `redis+sentinel://host:port,host:port/master`;
    without one, the embedded server. See `broker/address.py`."""
    data_dir: Path = Path(".gateway")
    """Where the embedded server keeps its append-only file; relative to the configuration file."""
    namespace: Namespace = "gateway"
    """What every key begins with, so that several gateways can share one Redis."""
    partitions: Annotated[int, Meta(ge=1, le=1024)] = 16
    """Partitions of each command stream. Fixed for the life of a log."""
    log_size: Count = 100_000
    """Entries of the event log by which a serving process may lag behind."""
    status_ttl: Period = Seconds(86_400)
    """How long a command's status can be asked for after its last change."""
    idempotency_ttl: Period = Seconds(86_400)
    """How long a command or an event is remembered, so that its repetition is known as one."""
    max_backlog: Count = 10_000
    """Commands that may wait in one partition; beyond, they are refused with 503."""
    max_dead_letters: Count = 100_000
    """Commands given up on that are kept; beyond, the oldest go."""
    max_in_flight: Count = 4096
    """Requests of one process that may wait for the broker; beyond, they are refused with 503,
    those of low priority beyond half of it."""
    patience: Period = Seconds(2)
    """How long a request may wait for the broker before it and all others are refused."""
    timeout: Period = Seconds(5)
    """How long one call to the broker may take before it counts as failed."""


class ServerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[server]`: the HTTP and WebSocket side."""

    host: Host = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65_535)] = 8080
    """0: any free port."""
    max_body: Size = Bytes(1 << 20)
    """A larger request body is refused with 413."""
    max_frame: Size = Bytes(64 << 10)
    """A larger WebSocket message is refused with close code 1009."""
    write_buffer: Size = Bytes(1 << 20)
    """Unsent bytes of one connection beyond which it is a slow consumer and closed with 4001."""
    max_subscriptions: Count = 100
    """Of one connection."""
    heartbeat: Period = Seconds(25)
    """Every connection hears from the gateway at least this often."""
    max_wait: Seconds = Seconds(30)
    """The longest `Prefer: wait=N` that is honoured."""
    goodbye_window: Seconds = Seconds(5)
    """At shutdown, clients are told to come back after a random delay of up to this."""
    shutdown: Seconds = Seconds(10)
    """How long requests may take to finish after SIGTERM."""
    console: bool = True
    """Serve the web console at `/`."""
    demo: bool = False
    """Serve the dashboard of the example at `/demo/`."""


class WorkerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[worker]`: who runs the handlers."""

    handlers: Sequence[ModuleName] = ()
    """Python modules that hold handlers, looked for beside the configuration file first."""
    concurrency: Count = 64
    """Commands that one worker process handles at a time."""
    lease: Period = Seconds(10)
    """How long a partition stays with a worker that no longer renews its hold."""
    shutdown: Seconds = Seconds(20)
    """How long running handlers may take to finish after SIGTERM."""


class RouteConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One of `routes`: the first whose `when` holds decides the stream."""

    when: str
    stream: StreamName
    priority: Priority | None = None
    """Instead of the command's own."""
    durability: Durability | None = None
    """Instead of the command's own."""


class CommandConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[commands]]`: a path that takes commands."""

    path: str
    """May hold `{parameters}`, which expressions see as `path.<name>`."""
    type: TypeName
    stream: StreamName
    schema: Path | None = None
    """A JSON Schema (2020-12) for the data; relative to the configuration file."""
    key: str | None = None
    """CEL: commands with the same key are handled one at a time and in order."""
    priority: Priority = Priority.NORMAL
    """`low`: refused before others when too many requests are under way."""
    durability: Durability = Durability.ACKNOWLEDGED
    """What a 202 means: `memory`, `acknowledged` or `fsync`."""
    routes: Sequence[RouteConfig] = ()


class HistoryConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`history` of a channel: what can be resumed."""

    size: Count = 1000
    """Events kept for each channel."""
    ttl: Period = Seconds(3600)
    """How long an event is kept."""


class ChannelConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[channels]]`: a family of channels that can be subscribed to."""

    pattern: str
    history: HistoryConfig | None = None
    max_rate: Rate | None = None
    """Deliveries a second to one subscriber at most; what comes in between leaves together."""
    conflate: str | None = None
    """CEL: of the events with the same value, a subscriber that lags or that `max_rate` holds back
    hears only the latest."""


class FeedConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[feeds]]`: which channels an event goes to."""

    type: FeedType
    """An event type, a prefix of one: `order.*`, or `*` for every type."""
    channels: Expressions
    """CEL: each gives a channel's name, or a list of them."""
    when: str | None = None
    """CEL: without it, every event of the type."""


class EventsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[events]`: who may publish events through `POST /events`. Nobody, unless it says so."""

    tokens: Sequence[Token] = ()
    """Bearer tokens of trusted producers."""
    anonymous: bool = False
    """Take events from anybody: for a laptop."""


class AdminConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[admin]`: who may look into the gateway and redrive dead letters. Nobody, unless it says so.

    Without a token there is nothing below `/admin/`.
    """

    tokens: Sequence[Token] = ()
    """Bearer tokens of operators."""


class LogConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[log]`: what the processes say on stderr, and what handlers log."""

    level: LogLevel = "info"
    """The least that is told: `debug`, `info`, `warning` or `error`."""
    format: LogFormat = "text"
    """`text`: lines for people. `json`: one object a line, for machines."""
    requests: bool = False
    """Tell of each HTTP request."""


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file."""

    broker: BrokerConfig = BrokerConfig()
    server: ServerConfig = ServerConfig()
    worker: WorkerConfig = WorkerConfig()
    commands: Sequence[CommandConfig] = ()
    channels: Sequence[ChannelConfig] = ()
    feeds: Sequence[FeedConfig] = ()
    events: EventsConfig = EventsConfig()
    admin: AdminConfig = AdminConfig()
    log: LogConfig = LogConfig()
    file: Path | None = None
    """Where all this was read from. Not a key of the file."""
