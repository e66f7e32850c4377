"""Events go to a socket, or through its transport where it is full: in order either way."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import cast

import pytest

from gateway.broker.broker import Broker as GatewayBroker
from gateway.broker.eventlog import Entry
from gateway.channels import EntryId
from gateway.events import Retention
from gateway.hub.history import History
from gateway.hub.hub import Hub
from gateway.transports import frames
from gateway.transports.rfc6455 import DetachedSocket
from tests.servers import Broker, eventually

EVENT = b'"%s"' % (b"x" * 4000)
PREFIX = b"log-"


@pytest.fixture
def hub(broker: Broker) -> Hub:
    log = GatewayBroker(broker.config, broker.clients).events
    hub = Hub(History(log, lambda channel: Retention(0)), write_buffer=64 << 20)
    hub.begin("log", EntryId(0, 0))
    return hub


class _Acceptor(asyncio.Protocol):
    """Detaches each connection and subscribes it."""

    def __init__(self, hub: Hub, accepted: "asyncio.Queue[DetachedSocket]") -> None:
        self._hub = hub
        self._accepted = accepted

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)  # uvloop's is one without saying so
        connection = DetachedSocket(transport, self._hub, max_size=100, heartbeat=25)
        transport.set_protocol(connection)
        self._hub.open(connection)
        self._hub.go_live(connection, ["orders"])
        self._accepted.put_nowait(connection)


@asynccontextmanager
async def subscribed(hub: Hub) -> AsyncIterator[tuple[DetachedSocket, socket.socket]]:
    """Give a subscribed connection, and the socket of its peer."""
    loop = asyncio.get_running_loop()
    accepted: asyncio.Queue[DetachedSocket] = asyncio.Queue()
    server = await loop.create_server(lambda: _Acceptor(hub, accepted), "127.0.0.1", 0)
    with socket.create_connection(server.sockets[0].getsockname()) as peer:
        peer.setblocking(False)
        yield await accepted.get(), peer
    server.close()
    await server.wait_closed()


def entries(first: int, count: int) -> Iterator[Entry]:
    for number in range(first, first + count):
        yield Entry(b"%d-0" % number, b"orders", EVENT, number)


def wire(first: int, count: int) -> bytes:
    """Return what a subscriber gets for these entries."""
    encode = frames.WEBSOCKET_FRAMES.event
    return b"".join(encode(PREFIX + entry.id, entry.event) for entry in entries(first, count))


async def read(peer: socket.socket, size: int) -> bytes:
    loop, received = asyncio.get_running_loop(), b""
    while len(received) < size:
        received += await loop.sock_recv(peer, size - len(received))
    return received


def fill(hub: Hub, connection: DetachedSocket) -> int:
    """Publish one event after the other until some of them wait; return how many they were."""
    number = 0
    while connection.descriptor >= 0:
        number += 1
        hub.dispatch(list(entries(number, 1)))
    return number


async def test_what_a_full_socket_does_not_take_comes_later_and_in_order(hub: Hub) -> None:
    async with subscribed(hub) as (connection, peer):
        count = fill(hub, connection)
        assert connection.unsent() > 0
        hub.dispatch(list(entries(count + 1, 50)))
        hub.dispatch(list(entries(count + 51, 1)))
        assert await read(peer, len(wire(1, count + 51))) == wire(1, count + 51)
        await eventually(lambda: connection.descriptor >= 0, reason="the socket was written to")
        hub.dispatch(list(entries(count + 52, 1)))
        assert await read(peer, len(wire(count + 52, 1))) == wire(count + 52, 1)


async def test_who_subscribes_while_bytes_wait_gets_the_events_behind_them(hub: Hub) -> None:
    async with subscribed(hub) as (connection, peer):
        count = fill(hub, connection)
        hub.go_live(connection, ["more"])
        hub.dispatch([Entry(b"%d-0" % (count + 1), b"more", EVENT, count + 1)])
        assert await read(peer, len(wire(1, count + 1))) == wire(1, count + 1)


async def test_a_peer_that_is_gone_is_forgotten_without_harm(hub: Hub) -> None:
    async with subscribed(hub) as (connection, peer):
        fill(hub, connection)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    async with subscribed(hub) as (other, other_peer):
        await eventually(lambda: connection.closed, reason="the connection was seen to be lost")
        hub.dispatch(list(entries(10_000, 1)))
        assert await read(other_peer, len(wire(10_000, 1))) == wire(10_000, 1)
        assert not other.closed


async def test_a_reset_that_nobody_has_heard_of_yet_ends_that_connection_alone(hub: Hub) -> None:
    async with subscribed(hub) as (connection, peer), subscribed(hub) as (other, other_peer):
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        peer.close()
        hub.dispatch(list(entries(1, 1)))  # before the loop could tell
        assert await read(other_peer, len(wire(1, 1))) == wire(1, 1)
        await eventually(lambda: connection.closed, reason="the connection was seen to be lost")
        assert (len(hub), other.closed) == (1, False)


async def test_an_encrypted_connection_is_never_written_to_beside_its_transport(hub: Hub) -> None:
    class Encrypted(asyncio.Transport):
        def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
            pass

    with socket.create_server(("127.0.0.1", 0)) as some:
        extra = {"socket": some, "sslcontext": ssl.create_default_context()}
        connection = DetachedSocket(Encrypted(extra), hub, max_size=100, heartbeat=25)
        assert connection.descriptor == -1
