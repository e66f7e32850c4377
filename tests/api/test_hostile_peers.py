"""Peers that mean harm: they are cut off, and others do not notice."""

import asyncio
import json
import time
from collections.abc import Iterable
from typing import Any

import pytest
from websockets.asyncio.client import connect

from gateway.transports import uvicorn_http
from tests.api.stand import Stand, problem
from tests.contract.talking import REQUEST, raw

PATIENCE = 30


async def answered(api: Stand, pieces: Iterable[bytes]) -> bytes:
    """Send pieces until the server has closed; return what it said."""
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    reading = asyncio.create_task(reader.read())
    try:
        async with asyncio.timeout(PATIENCE):
            for piece in pieces:
                if reading.done():
                    break
                writer.write(piece)
                await writer.drain()
            return await reading
    except ConnectionError:
        return b"reset" if not reading.done() or reading.exception() else reading.result()
    finally:
        writer.transport.abort()
        reading.cancel()


def endless(start: bytes, piece: bytes) -> Iterable[bytes]:
    yield start
    for _ in range(2000):
        yield piece


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (b"GET /healthz HTTP/1.1\r\nX: ", b"a" * 4096),
        (b"GET /", b"a" * 4096),
        (b"GET /healthz HTTP/1.1\r\n", b"X: y\r\n" * 700),
        (
            b"POST /orders HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
            b"X: y\r\n" * 700,
        ),
    ],
    ids=["header", "target", "headers", "trailers"],
)
async def test_a_head_without_an_end_is_cut_off(api: Stand, start: bytes, piece: bytes) -> None:
    said = await answered(api, endless(start, piece))
    assert said.startswith((b"HTTP/1.1 4", b"reset")), said[:200]


async def test_a_head_that_does_not_come_is_not_waited_for(
    api: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uvicorn_http, "HEAD_PATIENCE", 0.3)
    for start in (b"", b"GET /hea", b"GET /healthz HTTP/1.1\r\nHost: x\r\n"):
        said = await answered(api, [start])
        assert said.startswith(b"HTTP/1.1 408 "), said


async def test_a_body_that_does_not_come_is_not_waited_for(
    api: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.api.bodies.PATIENCE", 0.3)
    head = b"POST /orders HTTP/1.1\r\nHost: x\r\nContent-Length: 40\r\n\r\n{"
    status, _, body = await api.raw(head)
    assert (status, json.loads(body)["code"]) == (408, "request-timeout")


HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


@pytest.mark.parametrize("header", [b"Content-Length: 3\r\n", b"X: y\r\n" * 200])
async def test_a_handshake_that_cannot_be_read_is_refused(api: Stand, header: bytes) -> None:
    said = await answered(api, [HANDSHAKE + header + b"\r\n"])
    assert said.startswith(b"HTTP/1.1 4"), said[:100]


async def test_a_handshake_may_carry_as_much_as_any_other_request(api: Stand) -> None:
    url, cookie = f"ws://127.0.0.1:{api.port}/ws", {"cookie": "a" * 50_000}
    async with connect(url, proxy=None, additional_headers=cookie) as socket:
        await (await socket.ping())


async def test_a_flood_of_frames_leaves_others_their_turn(api: Stand) -> None:
    frames = [
        json.dumps({"id": 1, "subscribe": {"channel": "log", "after": "earliest"}}),
        json.dumps({"id": 2, "unsubscribe": {"channel": "log"}}),
    ] * 5000
    async with connect(f"ws://127.0.0.1:{api.port}/ws", proxy=None, max_queue=None) as socket:

        async def flood() -> None:
            for number, frame in enumerate(frames):
                await socket.send(frame)
                if number % 100 == 0:
                    await asyncio.sleep(0)

        async def read() -> None:
            answers = 0
            while answers < len(frames):
                answers += b'"id":' in (await socket.recv(decode=False))

        flooding = asyncio.gather(flood(), read())
        longest = 0.0
        while not flooding.done():
            begun = time.monotonic()
            assert (await api.http.get("/healthz")).status_code == 200
            longest = max(longest, time.monotonic() - begun)
        await flooding
    assert longest < 10  # it was minutes: what waited was gone through for each frame


async def test_nobody_but_the_gateway_tells_of_a_commands_life(api: Stand) -> None:
    forged: dict[str, Any] = {
        "specversion": "1.0",
        "id": "forged",
        "source": "/t",
        "type": "command.succeeded",
        "channel": "commands:01J",
    }
    headers = {"authorization": "Bearer sesame", "content-type": "application/cloudevents+json"}
    answer = await api.http.post("/events", content=json.dumps(forged), headers=headers)
    assert "only the gateway tells" in problem(answer, 422, "unroutable")


HEALTH = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
ORDER = (
    b"POST /orders HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nPrefer: wait=1\r\n"
    b'Content-Length: 24\r\n\r\n{"customer":"c","qty":1}'
)
STREAM = b"GET /sse?channel=log HTTP/1.1\r\nHost: x\r\n\r\n"
UPGRADE = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n"


@pytest.mark.parametrize(
    ("requests", "status"),
    [
        (HEALTH * 2000, b"200"),
        (UPGRADE * 1000, b"200"),
        (ORDER + HEALTH, b"20"),
        (ORDER + REQUEST, b"20"),
        (b"GET /nope HTTP/1.1\r\nHost: x\r\n\r\n" * 2, b"404"),
    ],
    ids=["many", "upgrades", "command", "websocket", "refused"],
)
async def test_of_several_requests_at_once_the_first_is_answered_alone(
    api: Stand, requests: bytes, status: bytes
) -> None:
    said = await answered(api, [requests])
    assert said.startswith(b"HTTP/1.1 " + status), said[:100]
    assert said.count(b"HTTP/1.1 ") == 1
    assert b"\r\nconnection: close\r\n" in said


async def test_a_request_behind_an_event_stream_does_not_end_it(api: Stand) -> None:
    async with raw(api.port, STREAM + ORDER) as (reader, _), asyncio.timeout(PATIENCE):
        await reader.readuntil(b"event: subscribed")
        await api.post("/orders", b'{"customer":"c","qty":1}')
        await reader.readuntil(b"order.placed")


async def test_who_sends_several_requests_and_hangs_up_leaves_nothing_in_the_log(
    api: Stand, caplog: pytest.LogCaptureFixture
) -> None:
    for requests in (ORDER * 2, HEALTH * 2, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 2):
        _, writer = await asyncio.open_connection("127.0.0.1", api.port)
        writer.write(requests)
        writer.close()
        await writer.wait_closed()
    assert (await api.post("/orders", b'{"customer":"c","qty":1}', prefer="wait=9")).is_success
    assert [each.getMessage() for each in caplog.records if each.levelname == "ERROR"] == []
