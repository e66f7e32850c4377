"""Configuration: what `gateway.toml` may say, as immutable structures.

A name that no structure knows is reported as a mistake, never passed over.
"""

from pathlib import Path

import msgspec


class Seconds(float):
    """A duration: `"250ms"`, `"30s"`, `"10m"`, `"1h"`, `"7d"`, or a number of seconds."""


class Bytes(int):
    """A size: `"64KiB"`, `"1MiB"`, or a number of bytes."""


class BrokerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[broker]`: the log."""

    url: str | None = None
    """`redis://`, `rediss://` or `unix://`; without one, the embedded server."""
    data_dir: Path = Path(".gateway")
    """Where the embedded server keeps its append-only file; relative to the configuration file."""
    namespace: str = "gateway"
    """What every key begins with, so that several gateways can share one Redis."""
    partitions: int = 16
    """Partitions of each command stream. Fixed for the life of a log."""
    log_size: int = 100_000
    """Entries of the event log by which a serving process may lag behind."""
    status_ttl: Seconds = Seconds(86_400)
    """How long a command's status can be asked for after its last change."""
    timeout: Seconds = Seconds(5)
    """How long one call to the broker may take before it counts as failed."""


class ServerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[server]`: the HTTP and WebSocket side."""

    host: str = "127.0.0.1"
    port: int = 8080
    max_body: Bytes = Bytes(1 << 20)
    """A larger request body is refused with 413."""
    max_frame: Bytes = Bytes(64 << 10)
    """A larger WebSocket message is refused with close code 1009."""
    write_buffer: Bytes = Bytes(1 << 20)
    """Unsent bytes of one connection beyond which it is a slow consumer and closed with 4001."""
    max_subscriptions: int = 100
    """Of one connection."""
    heartbeat: Seconds = Seconds(25)
    """Every connection hears from the gateway at least this often."""
    max_wait: Seconds = Seconds(30)
    """The longest `Prefer: wait=N` that is honoured."""
    goodbye_window: Seconds = Seconds(5)
    """At shutdown, clients are told to come back after a random delay of up to this."""
    shutdown: Seconds = Seconds(10)
    """How long requests may take to finish after SIGTERM."""
    console: bool = True
    """Serve the web console at `/`."""
    demo: str | None = None
    """A directory to serve at `/demo/`; relative to the configuration file."""


class WorkerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[worker]`: who runs the handlers."""

    handlers: list[str] = []
    """Python modules that hold handlers, looked for beside the configuration file first."""
    concurrency: int = 64
    """Commands that one worker process handles at a time."""
    lease: Seconds = Seconds(10)
    """How long a partition stays with a worker that no longer renews its hold."""
    shutdown: Seconds = Seconds(20)
    """How long running handlers may take to finish after SIGTERM."""


class RouteConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One of `routes`: the first whose `when` holds decides the stream."""

    when: str
    stream: str


class CommandConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[commands]]`: a path that takes commands."""

    path: str
    """May hold `{parameters}`, which expressions see as `path.<name>`."""
    type: str
    stream: str
    schema: Path | None = None
    """A JSON Schema (2020-12) for the data; relative to the configuration file."""
    key: str | None = None
    """CEL: commands with the same key are handled one at a time and in order."""
    routes: list[RouteConfig] = []


class HistoryConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`history` of a channel: what can be resumed."""

    size: int = 1000
    """Events kept for each channel."""
    ttl: Seconds = Seconds(3600)
    """How long an event is kept."""


class ChannelConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[channels]]`: a family of channels that can be subscribed to."""

    pattern: str
    history: HistoryConfig | None = None


class FeedConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[feeds]]`: which channels an event goes to."""

    type: str
    """An event type, or a prefix of one: `order.*`."""
    channels: list[str]
    """CEL: each gives a channel's name, or a list of them."""
    when: str | None = None
    """CEL: without it, every event of the type."""


class EventsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[events]`: who may publish events through `POST /events`. Nobody, unless it says so."""

    tokens: list[str] = []
    """Bearer tokens of trusted producers."""
    anonymous: bool = False
    """Take events from anybody: for a laptop."""


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file."""

    broker: BrokerConfig = BrokerConfig()
    server: ServerConfig = ServerConfig()
    worker: WorkerConfig = WorkerConfig()
    commands: list[CommandConfig] = []
    channels: list[ChannelConfig] = []
    feeds: list[FeedConfig] = []
    events: EventsConfig = EventsConfig()
