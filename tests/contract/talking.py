"""A WebSocket client that says what it likes, and sees what comes back to the letter."""

import asyncio
import json
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

from tests.contract.subscribers import PATIENCE


class Talk:
    """One conversation over `/ws`."""

    def __init__(self, websocket: ClientConnection) -> None:
        self.websocket = websocket

    async def say(self, *frames: object) -> None:
        """Send frames: text and bytes as they are, anything else as JSON."""
        for frame in frames:
            await self.websocket.send(
                frame if isinstance(frame, str | bytes) else json.dumps(frame)
            )

    def write(self, opcode: Opcode, data: bytes, *, fin: bool = True) -> None:
        """Send a WebSocket frame that the library would not send."""
        self.websocket.transport.write(Frame(opcode, data, fin).serialize(mask=True))

    async def text(self) -> str:
        """Return the next text, to the letter."""
        try:
            async with asyncio.timeout(PATIENCE):
                text = await self.websocket.recv()
        except TimeoutError:
            pytest.fail("nothing came")
        assert isinstance(text, str)
        return text

    async def hear(self) -> Any:
        """Return what the next text says that is no mere heartbeat."""
        while list(frame := json.loads(await self.text())) == ["position"]:
            pass
        return frame

    async def ask(self, *frames: object) -> Any:
        """Send frames and return what is said next."""
        await self.say(*frames)
        return await self.hear()

    async def subscribe(self, channel: str, after: str | None = None, *, id: int = 1) -> Any:
        """Subscribe and return the answer."""
        wish = {"channel": channel} if after is None else {"channel": channel, "after": after}
        return (await self.ask({"id": id, "subscribe": wish}))["subscribed"]

    async def events(self, count: int) -> list[Any]:
        """Return the data of the next events."""
        return [(await self.hear())["event"]["data"] for _ in range(count)]

    async def closed(self) -> tuple[int, str]:
        """Wait until the server has closed, and return its code and reason."""
        try:
            async with asyncio.timeout(PATIENCE):
                while True:
                    await self.websocket.recv()
        except TimeoutError:
            pytest.fail("the server did not close")
        except ConnectionClosed as closed:
            return (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else (1006, "")


@asynccontextmanager
async def talk(port: int, query: str = "", **options: Any) -> AsyncIterator[Talk]:
    """Connect to `/ws`. `options` are those of the `websockets` library."""
    usual = {"compression": None, "proxy": None, "ping_interval": None, "close_timeout": 2}
    async with connect(f"ws://127.0.0.1:{port}/ws{query}", **usual | options) as websocket:
        yield Talk(websocket)


REQUEST = (
    b"GET /ws HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
"""What a browser sends to open a WebSocket. RFC 6455, section 1.3."""


@asynccontextmanager
async def raw(port: int, request: bytes) -> AsyncIterator[tuple[StreamReader, StreamWriter]]:
    """Connect and send bytes; what comes back is nobody's business but the test's."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


def frame(opcode: Opcode, data: bytes) -> bytes:
    """A whole WebSocket frame as a client sends it."""
    return Frame(opcode, data).serialize(mask=True)
