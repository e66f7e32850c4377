"""Connections of either kind with peers that are silent, stuck or gone."""

import asyncio
import gc
import socket
from contextlib import suppress
from typing import Any

import h11
import pytest
from websockets.frames import Opcode

from gateway.errors import CloseCode
from gateway.settings import Bytes, Seconds
from gateway.transports import connection
from gateway.transports.connection import Detached
from gateway.transports.sse import DetachedEventStream
from gateway.transports.uvicorn_http import HTTPProtocol
from gateway.transports.uvicorn_websocket import WebSocketProtocol
from gateway.transports.websocket import Socket
from tests.contract.serving import DETACHED, PLAIN, Serving, Transports, serving
from tests.contract.subscribers import KINDS, Goodbye, Kind
from tests.contract.talking import REQUEST, frame, raw, talk
from tests.servers import RunningServer, eventually

COMPRESSING = Transports("compressing", HTTPProtocol, WebSocketProtocol)
"""Our protocols where uvicorn is told to compress."""
LARGE = "x" * 8000


@pytest.fixture(params=KINDS, ids=lambda each: each.name)
def kind(request: pytest.FixtureRequest) -> Kind:
    """Each kind of subscriber in turn."""
    chosen: Kind = request.param
    return chosen


async def ended(reader: asyncio.StreamReader) -> None:
    """Wait until the other side has closed, in whichever way."""
    async with asyncio.timeout(30):
        with suppress(ConnectionError):
            while await reader.read(65536):
                pass


async def test_who_does_not_wait_for_the_handshake_is_heard(valkey: RunningServer) -> None:
    one = frame(Opcode.TEXT, b'{"id":1,"subscribe":{"channel":"orders"}}')
    two = frame(Opcode.TEXT, b'{"id":2,"subscribe":{"channel":"orders:1"}}')
    async with (
        serving(valkey, DETACHED) as gateway,
        raw(gateway.port, REQUEST + one + two[:7]) as (reader, writer),
        asyncio.timeout(30),
    ):
        assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
        assert b'"orders"' in await reader.readuntil(b"}}")
        writer.write(two[7:])
        assert b'"orders:1"' in await reader.readuntil(b"}}")


async def test_who_answers_no_ping_is_given_up(valkey: RunningServer) -> None:
    async with (
        serving(valkey, DETACHED, heartbeat=Seconds(0.1)) as gateway,
        raw(gateway.port, REQUEST) as (reader, _),
        talk(gateway.port) as attentive,
    ):
        await reader.readuntil(b"\r\n\r\n")
        await ended(reader)
        assert await attentive.subscribe("orders")


async def test_whoever_says_anything_is_there(valkey: RunningServer) -> None:
    async with (
        serving(valkey, DETACHED, heartbeat=Seconds(0.2)) as gateway,
        raw(gateway.port, REQUEST) as (reader, writer),
    ):
        await reader.readuntil(b"\r\n\r\n")
        beats = 0
        async with asyncio.timeout(30):
            while beats < 8:
                beats += (await reader.readuntil(b"}")).count(b"position")
                writer.write(frame(Opcode.PONG, b""))
        assert len(gateway.gateway.hub) == 1


async def test_whom_the_gateway_does_not_listen_to_is_not_taken_for_silent(
    valkey: RunningServer,
) -> None:
    async with (
        serving(valkey, DETACHED, heartbeat=Seconds(0.1)) as gateway,
        raw(gateway.port, REQUEST) as (reader, _),
    ):
        await reader.readuntil(b"\r\n\r\n")
        (peer,) = [each for each in alive() if isinstance(each, Socket)]
        peer.be_quiet(1.5)
        async with asyncio.timeout(30):
            for _ in range(8):
                await reader.readuntil(b"position")
        assert len(gateway.gateway.hub) == 1
        await ended(reader)  # it is listened to again, and says nothing


async def test_who_never_reads_the_last_words_is_cut_off(
    valkey: RunningServer, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "FAREWELL", 0.1)
    async with (
        serving(valkey, DETACHED, tight=True, write_buffer=Bytes(64 << 10)) as gateway,
        kind.open(gateway.port, "orders", narrow=True) as slow,
    ):
        await slow.stands()
        await slowed(gateway)
        await eventually(lambda: not alive(), within=30, reason="the connection was cut off")
        with suppress(h11.RemoteProtocolError, ConnectionError):  # in the middle of something
            await slow.until(lambda: slow.ended, "the connection ended")
        assert not any(isinstance(each, Goodbye) for each in slow.received)


async def test_who_hangs_up_after_the_last_words_is_gone_at_once(
    valkey: RunningServer, kind: Kind
) -> None:
    async with serving(valkey, DETACHED, tight=True, write_buffer=Bytes(64 << 10)) as gateway:
        async with kind.open(gateway.port, "orders", narrow=True) as slow:
            await slow.stands()
            await slowed(gateway)
            assert (await slow.end()).code == CloseCode.SLOW_CONSUMER
        await eventually(
            lambda: not alive(), within=connection.FAREWELL / 2, reason="it was forgotten"
        )


async def test_who_hangs_up_before_it_reads_the_last_words_is_not_cut_off_later(
    valkey: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """asyncio's transport cannot be aborted any more once it closed with something unsent."""
    monkeypatch.setattr(connection, "FAREWELL", 0.5)
    loop = asyncio.get_running_loop()
    async with serving(valkey, DETACHED, tight=True, write_buffer=Bytes(64 << 10)) as gateway:
        with socket.socket() as peer:  # no reader that takes in what comes while nobody reads
            peer.setblocking(False)
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            await loop.sock_connect(peer, ("127.0.0.1", gateway.port))
            await loop.sock_sendall(peer, REQUEST.replace(b"/ws", b"/ws?channel=orders"))
            hub = gateway.gateway.hub
            await eventually(
                lambda: any(hub.is_subscribed(each, "orders") for each in alive()),
                reason="it was subscribed",
            )
            await slowed(gateway)
            peer.shutdown(socket.SHUT_WR)
            assert any(each.unsent() for each in alive())
            await eventually(
                lambda: all(each._transport.is_closing() for each in alive()),
                reason="the peer's end was heard",
            )
            with suppress(ConnectionError):
                while await loop.sock_recv(peer, 65536):
                    pass
        await asyncio.sleep(connection.FAREWELL)


async def test_who_has_just_hung_up_keeps_nobody_from_being_told_goodbye(gateway: Serving) -> None:
    """What is written to it is answered by a reset, and then it is not connected any more."""
    loop = asyncio.get_running_loop()
    with socket.socket() as gone:
        gone.setblocking(False)
        await loop.sock_connect(gone, ("127.0.0.1", gateway.port))
        await loop.sock_sendall(gone, REQUEST)
        await eventually(lambda: len(gateway.gateway.hub) == 1, reason="it was connected")
        with suppress(BlockingIOError):
            while gone.recv(65536):
                pass
        async with talk(gateway.port) as there:
            gone.close()
            gateway.gateway.hub.dismiss(CloseCode.POSITION_LOST, window_ms=0)
            assert (await there.closed())[0] == CloseCode.POSITION_LOST
    await eventually(lambda: not alive(), within=5, reason="both are forgotten")


async def slowed(gateway: Serving) -> None:
    """Publish until nobody is left in the hub, because nobody reads."""
    while len(gateway.gateway.hub):
        await gateway.publish("orders", *[LARGE] * 3)
        await gateway.settled()


async def test_a_connection_that_ended_is_freed_without_the_garbage_collector(
    gateway: Serving, kind: Kind
) -> None:
    gc.collect()
    gc.disable()
    try:
        async with kind.open(gateway.port, "orders") as subscriber:
            await subscriber.stands()
            assert len(alive()) == 1
            subscriber.abort()
        await eventually(lambda: not alive(), within=30, reason="it was freed")
    finally:
        gc.enable()


def alive() -> list[Detached]:
    """The detached connections in memory."""
    return [each for each in gc.get_objects() if type(each) in (Socket, DetachedEventStream)]


async def test_where_uvicorn_compresses_it_keeps_the_connection(valkey: RunningServer) -> None:
    async with serving(valkey, COMPRESSING) as gateway:
        async with talk(gateway.port, "?channel=orders", compression="deflate") as client:
            assert client.websocket.protocol.extensions
            await client.hear()
            await gateway.publish("orders", LARGE)
            assert await client.events(1) == [LARGE]
            assert await client.subscribe("orders:1")
        async with talk(gateway.port, "?channel=orders") as client:
            assert not client.websocket.protocol.extensions
            await client.hear()
            assert len(alive()) == 1


async def test_a_socket_that_is_closed_already_is_not_watched(gateway: Serving) -> None:
    async with raw(gateway.port, b"") as (_, writer):
        transport: Any = writer.transport
    await asyncio.sleep(0)
    connection.watch_peer(transport, 1)


async def test_plain_asgi_does_not_wait_for_ever_for_who_does_not_read(
    valkey: RunningServer, kind: Kind
) -> None:
    settings: dict[str, Any] = {"write_buffer": Bytes(64 << 10), "heartbeat": Seconds(0.2)}
    async with (
        serving(valkey, PLAIN, tight=True, **settings) as gateway,
        kind.open(gateway.port, "orders", narrow=True) as slow,
    ):
        await slow.stands()
        await slowed(gateway)
        await gateway.ended()
