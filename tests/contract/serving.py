"""A whole serving process inside the test: real log, real sockets, either kind of transport."""

import asyncio
import contextlib
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
import uvicorn
from starlette.types import ASGIApp
from uvicorn.server import ServerState

from gateway.app import Gateway
from gateway.auth.authenticator import Source
from gateway.broker.broker import Broker, open_broker
from gateway.broker.keys import Keys
from gateway.channels import EntryId
from gateway.config import (
    BrokerConfig,
    ChannelConfig,
    CommandConfig,
    Config,
    HistoryConfig,
    ServerConfig,
)
from gateway.errors import BrokerUnavailable
from gateway.events import Event
from gateway.policy.compiler import Policy
from gateway.settings import Seconds
from gateway.transports.uvicorn_http import HTTPProtocol
from gateway.transports.uvicorn_websocket import WebSocketProtocol
from tests.servers import RunningServer, eventually

SMALL_BUFFER = 16 << 10
"""Bytes that the kernel keeps for a connection of a server with `tight` sockets."""


USUAL = {"goodbye_window": Seconds(2), "heartbeat": Seconds(600)}
"""Settings of `[server]`: heartbeats come where a test waits for them, and nowhere else."""


@dataclass(frozen=True, slots=True)
class Transports:
    """One way in which connections are served: which protocols uvicorn is given."""

    name: str
    http: Any
    ws: Any

    @property
    def detached(self) -> bool:
        return self.name == "detached"


DETACHED = Transports("detached", HTTPProtocol, WebSocketProtocol)
PLAIN = Transports("plain", "h11", "websockets-sansio")
"""uvicorn's stock protocols, which offer nothing beyond ASGI."""


@dataclass(frozen=True, slots=True)
class Logged:
    """One event as the log holds it."""

    id: EntryId
    channel: str
    event: dict[str, Any]


class Serving:
    """A gateway that listens, and what a test does behind its back."""

    def __init__(
        self, gateway: Gateway, broker: Broker, server: asyncio.Server, state: ServerState
    ) -> None:
        self.gateway = gateway
        self.broker = broker
        self.port: int = server.sockets[0].getsockname()[1]
        self._server = server
        self._state = state
        self._keys = Keys(gateway.config.broker.namespace)
        self.redis = broker.blocking()

    async def publish(self, channel: str, *data: object) -> None:
        """Append events to a channel, one after the other in one step."""
        await self.gateway.dispatcher.publish(
            [Event("t.happened", data=each, channel=channel) for each in data], trusted=True
        )

    def publishes(self, channel: str, data: object) -> Callable[[], Awaitable[bool]]:
        """Return what tries to publish an event, and says whether the log took it."""

        async def attempt() -> bool:
            with contextlib.suppress(BrokerUnavailable):
                await self.publish(channel, data)
                return True
            return False

        return attempt

    async def settled(self) -> None:
        """Wait until the hub has dispatched all that is in the log."""
        log = await self.log()
        if log:
            hub = self.gateway.hub
            await eventually(
                lambda: hub.position >= log[-1].id, within=30, reason="the feed caught up"
            )

    async def log(self) -> list[Logged]:
        """Return every event of the log, in its order."""
        entries: Any = await self.redis.xrange(self._keys.events)
        return [
            Logged(EntryId.parse(id), fields[b"c"].decode(), msgspec.json.decode(fields[b"e"]))
            for id, fields in entries
            if fields[b"e"]
        ]

    async def history_is_gone(self, channel: str) -> None:
        """Wait until everything that a channel retained has expired."""

        async def gone() -> bool:
            return not await self.redis.exists(self._keys.history(channel))

        await eventually(gone, within=30, reason=f"the history of {channel} expired")

    async def floor(self, channel: str) -> EntryId:
        """The newest entry that was removed from what a channel retains; 0-0 if none was."""
        return EntryId.parse(await self.redis.get(self._keys.floor(channel)) or "0-0")

    async def reads(self) -> int:
        """How often the server read entries backwards: a resume does so once, and nothing else."""
        stats: Any = await self.redis.info("commandstats")
        calls: int = stats.get("cmdstat_xrevrange", {"calls": 0})["calls"]
        return calls

    async def begin_anew(self) -> None:
        """Replace the log: everything in it is gone."""
        await self.redis.flushall()

    async def empty(self) -> None:
        """Wait until no connection is left."""
        hub = self.gateway.hub
        await eventually(lambda: not len(hub), within=30, reason="the hub forgot all connections")

    def shut_down(self) -> None:
        """Stop as after SIGTERM: no more connections, goodbye to those that are there."""
        self._server.close()
        self.gateway.say_goodbye()

    def stop_connections(self) -> None:
        """Have every connection end that is with uvicorn, as its server does when it stops."""
        for connection in list(self._state.connections):
            connection.shutdown()

    async def ended(self) -> None:
        """Stop, and wait until all requests have ended."""
        self.shut_down()
        await eventually(lambda: not self._state.tasks, within=30, reason="all requests ended")
        for connection in list(self._state.connections):
            connection.transport.abort()


def config_of(log: RunningServer, namespace: str = "", **server: Any) -> Config:
    """A gateway with a channel for each promise about history."""
    return Config(
        broker=BrokerConfig(url=log.url, namespace=namespace or f"contract-{secrets.token_hex(4)}"),
        server=ServerConfig(**USUAL | server),
        commands=[CommandConfig(path="/orders", type="order.place", stream="orders")],
        channels=[
            ChannelConfig(pattern="orders", history=HistoryConfig(size=5000)),
            ChannelConfig(pattern="orders:{customer}", history=HistoryConfig(size=5000)),
            ChannelConfig(pattern="last:{count}", history=HistoryConfig(size=5)),
            ChannelConfig(pattern="brief", history=HistoryConfig(ttl=Seconds(0.2))),
            ChannelConfig(pattern="fleeting"),
            ChannelConfig(pattern="calm", history=HistoryConfig(), max_rate=2),
            ChannelConfig(
                pattern="board", history=HistoryConfig(), max_rate=2, conflate="data.item"
            ),
            ChannelConfig(pattern="prices", history=HistoryConfig(), conflate="data.item"),
        ],
    )


@contextlib.asynccontextmanager
async def serving(
    log: RunningServer,
    transports: Transports,
    *,
    tight: bool = False,
    around: Any = lambda app: app,
    change: Callable[[Config], Config] = lambda config: config,
    sources: Sequence[Source] = (),
    **settings: Any,
) -> AsyncIterator[Serving]:
    """Serve on a free port.

    `tight` gives sockets small buffers, so that a peer that does not read is noticed soon;
    `around` wraps the application; `settings` are a namespace, to share a log, and `[server]`;
    `change` makes another configuration of it; `sources` know credentials.
    """
    config = change(config_of(log, **settings))
    async with open_broker(config.broker) as broker:
        gateway = Gateway(config, Policy.of(config), broker, sources=sources)
        async with gateway.running():
            protocols = _uvicorn(around(gateway.app()), transports, config)
            state = ServerState()
            server = await asyncio.get_running_loop().create_server(
                partial(protocols.http_protocol_class, protocols, state, {}),
                sock=_bound(tight=tight),
            )
            served = Serving(gateway, broker, server, state)
            try:
                yield served
            finally:
                await served.ended()


def _bound(*, tight: bool) -> socket.socket:
    """A socket on a free port. The server closes it."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if tight:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BUFFER)
    listener.bind(("127.0.0.1", 0))
    return listener


def _uvicorn(app: ASGIApp, transports: Transports, config: Config) -> Any:
    protocols = uvicorn.Config(
        app,
        http=transports.http,
        ws=transports.ws,
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        ws_max_size=config.server.max_frame if transports.detached else 16 << 20,
        ws_per_message_deflate=not transports.detached,
        ws_ping_interval=None,
    )
    protocols.load()
    return protocols
