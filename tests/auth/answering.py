"""A provider that answers as the test says, over real sockets, and counts who asks."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class Answering:
    """An HTTP server with one answer to everything."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        """What came, each with its head and body."""
        self.answer = b""
        self.open = asyncio.Event()
        """Nobody is answered while it is not set."""
        self.open.set()
        self.url = ""

    def say(self, body: bytes, status: str = "200 OK", *headers: str) -> None:
        lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", *headers, "", ""]
        self.answer = "\r\n".join(lines).encode() + body

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lengths = [
                    int(line.split(b":")[1])
                    for line in head.lower().split(b"\r\n")
                    if line.startswith(b"content-length:")
                ]
                self.asked.append(head + await reader.readexactly(sum(lengths)))
                await self.open.wait()
                writer.write(self.answer)
                await writer.drain()
        writer.close()


@asynccontextmanager
async def answering() -> AsyncIterator[Answering]:
    provider = Answering()
    server = await asyncio.start_server(provider.serve, "127.0.0.1", 0)
    provider.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/keys"
    try:
        yield provider
    finally:
        provider.open.set()
        server.close()
