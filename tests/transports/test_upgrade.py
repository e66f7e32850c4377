"""Handshakes on their way through applications that do not detach the connection."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from gateway.transports.uvicorn_http import HTTPProtocol
from gateway.transports.uvicorn_websocket import WebSocketProtocol
from tests.servers import eventually

PATIENCE = 30.0
MASKED = b"\x81\x85\0\0\0\0early"
"""A frame with a text, as clients send them."""
REQUEST = (
    b"GET /a%20b?c=d HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade"
    b"\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@asynccontextmanager
async def serving(app: ASGIApp) -> AsyncIterator[int]:
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app,
        http=HTTPProtocol,
        ws=WebSocketProtocol,
        lifespan="off",
        log_config=None,
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server._serve([listener]))
    try:
        await eventually(lambda: server.started, reason="the server started")
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await task


def talk(port: int) -> connect:
    return connect(f"ws://127.0.0.1:{port}/", proxy=None, open_timeout=PATIENCE)


async def hear(websocket: ClientConnection) -> str:
    return str(await asyncio.wait_for(websocket.recv(), PATIENCE))


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    assert (await receive())["type"] == "websocket.connect"
    headers = [(b"x-more", b"yes")]
    await send({"type": "websocket.accept", "headers": headers, "subprotocol": None})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"] * 2})
        if message["text"] == "end":
            await send({"type": "websocket.close", "code": 4321, "reason": "as you wish"})
            return


async def test_an_application_may_go_on_by_asgi() -> None:
    async with serving(echo) as port, talk(port) as websocket:
        assert websocket.response is not None
        assert websocket.response.headers["x-more"] == "yes"
        await websocket.send("a")
        await websocket.send("b")
        assert [await hear(websocket), await hear(websocket)] == ["aa", "bb"]
        await websocket.send("end")
        assert await hear(websocket) == "endend"
        with pytest.raises(ConnectionClosed) as closed:
            await hear(websocket)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4321


async def test_what_came_before_it_was_accepted_is_heard() -> None:
    async with serving(echo) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(REQUEST + MASKED)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE)
        assert head.startswith(b"HTTP/1.1 101 ")
        assert await asyncio.wait_for(reader.readexactly(12), PATIENCE) == b"\x81\x0aearlyearly"
        writer.transport.abort()


async def test_it_is_told_what_was_asked_for() -> None:
    scopes: list[Scope] = []

    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        await send({"type": "websocket.close"})

    async with serving(refuse) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(REQUEST.replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Protocol: x, y\r\n\r\n"))
        assert b" 403 " in await asyncio.wait_for(reader.readline(), PATIENCE)
        writer.transport.abort()
    (scope,) = scopes
    assert scope["type"] == "websocket"
    assert scope["scheme"] == "ws"
    assert (scope["path"], scope["raw_path"]) == ("/a b", b"/a%20b")
    assert scope["query_string"] == b"c=d"
    assert scope["subprotocols"] == ["x", "y"]
    assert (b"sec-websocket-version", b"13") in scope["headers"]


async def breaks(scope: Scope, receive: Receive, send: Send) -> None:
    raise RuntimeError("oh")


async def forgets(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()


@pytest.mark.parametrize(
    ("app", "told"), [(breaks, "Exception in ASGI"), (forgets, "without completing handshake")]
)
async def test_a_mistake_of_an_application_is_a_500(
    app: ASGIApp, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(app) as port:
        with pytest.raises(InvalidStatus) as refused:
            async with talk(port):
                pass
    assert refused.value.response.status_code == 500
    assert [each for each in caplog.messages if told in each]


async def test_who_waits_before_it_accepts_hears_that_the_peer_is_gone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    heard: list[str] = []

    async def wait(scope: Scope, receive: Receive, send: Send) -> None:
        heard.append((await receive())["type"])
        heard.append((await receive())["type"])
        await send({"type": "websocket.accept"})

    async with serving(wait) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(REQUEST)
        await eventually(lambda: heard, reason="it was asked")
        writer.transport.abort()
        await eventually(lambda: len(heard) == 2, reason="it heard of the end")
    assert heard == ["websocket.connect", "websocket.disconnect"]
    assert not [each for each in caplog.records if each.levelname == "ERROR"]


@pytest.mark.parametrize("target", [b"http://", b"http://x"])
async def test_a_target_without_a_path_is_refused(target: bytes) -> None:
    async with serving(echo) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(REQUEST.replace(b"/a%20b?c=d", target))
        said = await asyncio.wait_for(reader.readline(), PATIENCE)
        writer.transport.abort()
    assert said.startswith(b"HTTP/1.1 400 ")


async def answered(port: int, request: bytes) -> bytes:
    """Return the head of what comes back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    try:
        return await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE)
    finally:
        writer.transport.abort()


@pytest.mark.parametrize(
    "lines",
    [
        (b"Upgrade", b"keep-alive"),
        (b"keep-alive", b"Upgrade"),
        (b"keep-alive, upgrade", b"x"),
    ],
)
async def test_connection_options_may_be_on_several_lines(lines: tuple[bytes, bytes]) -> None:
    options = b"Connection: %b\r\nConnection: %b" % lines
    async with serving(echo) as port:
        request = REQUEST.replace(b"Connection: keep-alive, Upgrade", options)
        assert (await answered(port, request)).startswith(b"HTTP/1.1 101 ")


@pytest.mark.parametrize("version", [b"0", b"8", b"14", b"x"])
async def test_who_speaks_another_version_is_told_the_right_one(version: bytes) -> None:
    async with serving(echo) as port:
        head = await answered(port, REQUEST.replace(b"13", version))
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"sec-websocket-version: 13\r\n" in head.lower()


async def test_of_an_absolute_target_the_host_counts() -> None:
    hosts: list[bytes] = []

    async def note(scope: Scope, receive: Receive, send: Send) -> None:
        hosts.extend(value for name, value in scope["headers"] if name == b"host")
        await send({"type": "websocket.close"})

    targets = (b"http://a:1/", b"HTTP://b/", b"ws://c/")
    async with serving(note) as port:
        for target in targets:
            await answered(port, REQUEST.replace(b"/a%20b?c=d", target))
    assert hosts == [b"a:1", b"b", b"c"]
