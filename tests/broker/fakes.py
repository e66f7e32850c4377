"""Servers that no real one can be made into: very old, silent, or breaking off in mid-sentence."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

import hiredis

OK = b"+OK\r\n"

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(handler: Handler) -> AsyncIterator[int]:
    """Serve on a free port of loopback, which this gives; at the end all connections are cut."""
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        try:
            await handler(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.close()
        await server.wait_closed()


class FakeServer:
    """Speaks just enough of the protocol; all that it was sent is in `commands`."""

    def __init__(self, replies: Mapping[str, bytes | None]) -> None:
        """Answer a command by its name, or with OK; None breaks the connection off instead."""
        self.commands: list[list[bytes]] = []
        self.url = ""
        self._replies = replies

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection until it ends."""
        parser = hiredis.Reader()
        while data := await reader.read(65536):
            parser.feed(data)
            while (command := parser.gets()) is not False:
                self.commands.append(command)
                reply = self._replies.get(command[0].decode().upper(), OK)
                if reply is None:
                    return
                writer.write(reply)

    def count(self, name: str) -> int:
        """How often a command came."""
        return sum(command[0].decode().upper() == name for command in self.commands)


@asynccontextmanager
async def fake_server(replies: Mapping[str, bytes | None]) -> AsyncIterator[FakeServer]:
    """Run a fake server that answers with `replies`."""
    fake = FakeServer(replies)
    async with listening(fake.serve) as port:
        fake.url = f"redis://127.0.0.1:{port}"
        yield fake


def bulk(text: str) -> bytes:
    """A string as the protocol carries it."""
    return b"$%d\r\n%b\r\n" % (len(text), text.encode())
