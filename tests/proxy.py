"""A cable between a client and a server: a TCP proxy on loopback that a test can pull out."""

import asyncio
from contextlib import suppress


class Proxy:
    """Passes bytes on until it loses every connection, refuses new ones, or falls silent."""

    def __init__(self, target: int) -> None:
        self.target = target
        """The server's port. A server that comes back on another one is given a new target."""
        self.port = 0
        self.accepted = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def open(self) -> None:
        """Listen: on the same port as before, if there was one."""
        self._server = await asyncio.start_server(self._pass_on, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def refuse(self) -> None:
        """Listen no more, and lose every connection."""
        if self._server:
            self._server.close()
        self.cut()

    def cut(self) -> None:
        """Lose every connection, as when somebody stumbles over a cable."""
        for writer in self._writers:
            writer.transport.abort()

    def freeze(self) -> None:
        """Pass nothing on and say nothing about it, as a network does that is out of reach."""
        self._flowing.clear()

    def thaw(self) -> None:
        self._flowing.set()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        try:
            there, back = await self._connect()
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, back}
        try:
            await asyncio.gather(self._copy(reader, back), self._copy(there, writer))
        finally:
            self._writers -= {writer, back}

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Reach the server. Raises `OSError`."""
        return await asyncio.open_connection("127.0.0.1", self.target)

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                await self._flowing.wait()
                writer.write(data)
                await writer.drain()
        writer.close()
