"""Configuration: what `gateway.toml` may say, as immutable structures.

A name that no structure knows is reported as a mistake, never passed over. What a single value may
be is in `settings.py`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from gateway.authconfig import IntrospectionConfig, JWTConfig
from gateway.commands import Durability, Priority
from gateway.settings import (
    BrokerUrl,
    Bytes,
    CookieName,
    Count,
    Expressions,
    FeedType,
    Frequency,
    Holders,
    Host,
    HostName,
    LimitName,
    LogFormat,
    LogLevel,
    MetricsFor,
    ModuleName,
    Namespace,
    Of,
    Origin,
    Period,
    Rate,
    Seconds,
    Size,
    StreamName,
    Token,
    TypeName,
)


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
    origins: Sequence[Origin] = ()
    """Origins of pages that may talk to the gateway from a browser, beside its own; `*`: all."""
    hosts: Sequence[HostName] = ()
    """Names that requests may be for. Without any: all."""
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
    trusted_proxies: Sequence[str] = ()
    """Addresses and networks whose `Forwarded` and `X-Forwarded-For` are believed."""
    requests_per_ip: Frequency = Frequency(200)
    """What one address may ask of one process, whatever it asks, before anything is looked at."""


class TLSConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[tls]`: HTTPS, by files that may be replaced while the gateway runs."""

    certificate: Path | None = None
    """The certificate and those of its issuers, PEM. Without it, plain HTTP."""
    key: Path | None = None
    """The private key, PEM; without it, it is in the file of the certificate."""
    client_ca: Path | None = None
    """Issuers of client certificates, PEM. With it, who shows none of them is not served."""
    hsts: Seconds = Seconds(365 * 86_400)
    """For how long browsers shall insist on HTTPS; 0: they are not told to."""


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
    allow: str | None = None
    """CEL: who may send it, by `principal`, `request`, `data` and `path`. Without it everybody may,
    and nobody once there is authentication."""
    routes: Sequence[RouteConfig] = ()


class HistoryConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`history` of a channel: what can be resumed."""

    size: Count = 1000
    """Events kept for each channel."""
    ttl: Period = Seconds(3600)
    """How long an event is kept."""
    allow: str | None = None
    """CEL: who may read all of it. Without it, who may subscribe."""


class ChannelConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[channels]]`: a family of channels that can be subscribed to."""

    pattern: str
    history: HistoryConfig | None = None
    subscribe: str | None = None
    """CEL: who may hear it, by `principal`, `request`, `channel` and the pattern's parameters.
    Without it everybody may, and nobody once there is authentication."""
    publish: str | None = None
    """CEL, likewise: whose events, sent to `POST /events`, may go to it."""
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


class QueueConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`queue` of a limit: who comes too early waits for its turn instead of being refused."""

    size: Count = 100
    """How many may wait, of each allowance."""
    wait: Period = Seconds(1)
    """How long one may wait."""


class LimitConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[limits]]`: how often something may be done, on all nodes together."""

    name: LimitName
    """What headers, errors and metrics call it."""
    per: Holders
    """Who has an allowance of its own: `principal`, `api_key`, `ip`, `command`, `connection`,
    several of them together, or `everything`."""
    rate: Frequency
    """How often, for as long as one likes."""
    burst: Count | None = None
    """How often at once, after a rest; without it, what `rate` allows in a second."""
    of: Of = Of.COMMANDS
    """What is counted: `commands`, `events`, `subscriptions` or `connections`."""
    commands: Sequence[TypeName] = ()
    """Types of commands that count; without them all do."""
    queue: QueueConfig | None = None
    """Who comes too early waits; without it, it is refused with 429 at once."""
    when: str | None = None
    """CEL over `principal` and `request`: whom it concerns; without it everybody."""


class QuotasConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[quotas]`: how much may be held at a time, on all nodes together. Without a number, any."""

    connections_per_principal: Count | None = None
    """Who shows no credentials counts as its address, here and below."""
    connections_per_ip: Count | None = None
    subscriptions_per_principal: Count | None = None
    subscriptions_per_ip: Count | None = None


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
    metrics: MetricsFor | None = None
    """Who may read `/metrics`: `anybody`, `operators` or `nobody`. Without it: operators, and
    anybody while there are neither tokens nor authentication."""


class AuthConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[auth]`: who is asking. While nothing here says how that is found out, everybody is.

    Once it does, what no rule allows is denied.
    """

    anonymous: bool = False
    """Let in who shows no credentials; what they may do is for the rules to say."""
    claims: Sequence[str] = ()
    """Claims that travel with commands to their handlers."""
    api_keys: Path | None = None
    """A file of API keys, which `gateway token` writes. It is read again when it changes."""
    jwt: Sequence[JWTConfig] = ()
    """Issuers whose signed tokens are believed."""
    introspection: IntrospectionConfig | None = None
    """Whom to ask about other tokens."""
    cookie: CookieName | None = None
    """The cookie whose value is a token, as far as a page of an allowed origin sends it."""
    first_frame: Period = Seconds(5)
    """How long a WebSocket that shows nothing may take to say who it is."""
    ticket_ttl: Period = Seconds(30)
    """How long a ticket can be used."""

    @property
    def configured(self) -> bool:
        """Whether there is any way to tell one from another."""
        return bool(self.jwt or self.introspection or self.api_keys)


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
    tls: TLSConfig = TLSConfig()
    worker: WorkerConfig = WorkerConfig()
    commands: Sequence[CommandConfig] = ()
    channels: Sequence[ChannelConfig] = ()
    feeds: Sequence[FeedConfig] = ()
    limits: Sequence[LimitConfig] = ()
    quotas: QuotasConfig = QuotasConfig()
    auth: AuthConfig = AuthConfig()
    events: EventsConfig = EventsConfig()
    admin: AdminConfig = AdminConfig()
    log: LogConfig = LogConfig()
    file: Path | None = None
    """Where all this was read from. Not a key of the file."""
