"""RFC 6455 on `/ws`: what a peer may do to a connection, politely or not."""

import asyncio

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send
from websockets.exceptions import ConnectionClosed
from websockets.frames import Opcode

from gateway.settings import Bytes
from tests.contract.serving import Serving, Transports, serving
from tests.contract.talking import REQUEST, frame, raw, talk
from tests.servers import RunningServer, eventually

SUBSCRIBE = b'{"id":1,"subscribe":{"channel":"orders"}}'


class Gate:
    """Middleware that holds requests back, as one that asks somebody else would."""

    def __init__(self) -> None:
        self.arrived = asyncio.Event()
        self.opened = asyncio.Event()

    def around(self, app: ASGIApp) -> ASGIApp:
        async def gated(scope: Scope, receive: Receive, send: Send) -> None:
            self.arrived.set()
            await self.opened.wait()
            await app(scope, receive, send)

        return gated


async def test_a_message_beyond_the_limit_is_too_big(
    log: RunningServer, transports: Transports
) -> None:
    async with serving(log, transports, max_frame=Bytes(1000)) as gateway:
        async with talk(gateway.port) as client:
            refusal = await client.ask({"id": 1, "subscribe": {"channel": "x" * 900}})
            assert refusal["error"]["code"] == "bad-request"
            await client.say("x" * 1001)
            assert (await client.closed())[0] == 1009
        async with talk(gateway.port) as client:
            client.write(Opcode.TEXT, b"x" * 600, fin=False)
            client.write(Opcode.CONT, b"x" * 600)
            assert (await client.closed())[0] == 1009


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(Opcode.TEXT, b"\xff\xfe"), 1007),
        (b"\x81\x02{}", 1002),  # not masked
        (b"\x83\x80abcd", 1002),  # an opcode that means nothing
        (b"\xc1\x80abcd", 1002),  # a reserved bit
        (frame(Opcode.CONT, b"x"), 1002),  # goes on with nothing
    ],
    ids=["utf-8", "unmasked", "opcode", "reserved", "continuation"],
)
async def test_a_broken_frame_ends_the_connection(gateway: Serving, data: bytes, code: int) -> None:
    async with talk(gateway.port) as client:
        client.websocket.transport.write(data)
        assert (await client.closed())[0] == code


async def test_a_message_may_come_in_fragments_and_bytes(gateway: Serving) -> None:
    async with talk(gateway.port) as client:
        client.write(Opcode.TEXT, SUBSCRIBE[:9], fin=False)
        client.write(Opcode.PING, b"now")
        client.write(Opcode.CONT, SUBSCRIBE[9:20], fin=False)
        client.write(Opcode.CONT, SUBSCRIBE[20:])
        assert (await client.hear())["subscribed"]
        for byte in frame(Opcode.TEXT, SUBSCRIBE.replace(b"orders", b"orders:1")):
            client.websocket.transport.write(bytes((byte,)))
            await asyncio.sleep(0)
        assert (await client.hear())["subscribed"]
        both = b'{"id":3,"unsubscribe":{"channel":"%b"}}'
        client.websocket.transport.write(
            frame(Opcode.TEXT, both % b"orders") + frame(Opcode.TEXT, both % b"orders:1")
        )
        assert [(await client.hear())["id"] for _ in range(2)] == [3, 3]


async def test_a_ping_is_answered_and_a_pong_is_not(gateway: Serving) -> None:
    async with talk(gateway.port) as client:
        await client.websocket.pong(b"nobody asked")
        pong = await client.websocket.ping(b"are you there?")
        async with asyncio.timeout(30):
            await pong
        assert await client.subscribe("orders")


@pytest.mark.parametrize("code", [1000, 1001, 3000, 4321])
async def test_a_close_is_answered_with_its_own_code(gateway: Serving, code: int) -> None:
    async with talk(gateway.port, "?channel=orders") as client:
        await client.hear()
        await client.websocket.close(code, "enough")
        received = client.websocket.protocol.close_rcvd
        assert received is not None
        assert received.code == code
        await gateway.empty()


async def test_a_close_without_a_code_is_answered(gateway: Serving) -> None:
    async with talk(gateway.port, "?channel=orders") as client:
        await client.hear()
        client.write(Opcode.CLOSE, b"")
        with pytest.raises(ConnectionClosed):
            await client.text()
        await gateway.empty()


async def test_who_closes_only_half_is_let_go(gateway: Serving) -> None:
    async with raw(gateway.port, REQUEST) as (reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(frame(Opcode.TEXT, SUBSCRIBE))
        assert b"subscribed" in await reader.readuntil(b"}}")
        writer.write_eof()
        async with asyncio.timeout(30):
            await reader.read()
        await gateway.empty()


async def test_who_goes_away_before_the_handshake_leaves_nothing(
    log: RunningServer, transports: Transports
) -> None:
    gate = Gate()
    async with serving(log, transports, around=gate.around) as gateway:
        stream = b"GET /sse?channel=orders HTTP/1.1\r\nHost: test\r\n\r\n"
        for request in (b"", REQUEST[:40], REQUEST, stream):
            async with raw(gateway.port, request):
                if request.endswith(b"\r\n\r\n"):
                    await gate.arrived.wait()
            gate.arrived.clear()
        gate.opened.set()
        await gateway.ended()
        assert len(gateway.gateway.hub) == 0


async def test_what_comes_during_the_handshake_is_not_lost(
    log: RunningServer, transports: Transports
) -> None:
    gate = Gate()
    async with (
        serving(log, transports, around=gate.around) as gateway,
        raw(gateway.port, REQUEST) as (reader, writer),
    ):
        await gate.arrived.wait()
        one = frame(Opcode.TEXT, SUBSCRIBE)
        two = frame(Opcode.TEXT, SUBSCRIBE.replace(b"orders", b"orders:1"))
        writer.write(one + two[:7])
        for _ in range(20):  # either way must work; this is so that it comes early
            await asyncio.sleep(0)
        gate.opened.set()
        assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
        assert b'"orders"' in await reader.readuntil(b"}}")
        writer.write(two[7:])
        assert b'"orders:1"' in await reader.readuntil(b"}}")


async def test_compression_is_negotiated_or_declined_but_never_assumed(
    gateway: Serving, transports: Transports
) -> None:
    async with talk(gateway.port, "?channel=orders", compression="deflate") as client:
        negotiated = bool(client.websocket.protocol.extensions)
        assert negotiated is not transports.detached
        await client.hear()
        await gateway.publish("orders", "x" * 2000)
        assert await client.events(1) == ["x" * 2000]
        assert await client.subscribe("orders:" + "y" * 200)


async def test_who_does_not_read_the_answers_is_not_asked_for_more(
    log: RunningServer, transports: Transports
) -> None:
    async with serving(log, transports, tight=True) as gateway:
        hub = gateway.gateway.hub
        async with raw(gateway.port, REQUEST) as (reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            reader._limit = 1  # type: ignore[attr-defined]  # so that it takes in next to nothing
            asked = 0
            while not hub.slow:
                writer.write(frame(Opcode.TEXT, b'{"id":1}') * 50)
                asked += 50
                await asyncio.sleep(0)
            await eventually(lambda: len(hub.slow) == 1, reason="answers piled up")
            (slow,) = hub.slow
            for _ in range(3):
                before = slow.unsent()
                writer.write(frame(Opcode.TEXT, b'{"id":1}') * 200)
                asked += 200
                async with talk(gateway.port) as other:
                    for _ in range(10):
                        await other.ask({"id": 2})
            assert slow.unsent() == before
            answers = b""
            async with asyncio.timeout(30):
                while answers.count(b'"error"') < asked:
                    answers += await reader.read(65536)
            assert answers.count(b'"error"') == asked
