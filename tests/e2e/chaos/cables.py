"""Cables: TCP proxies on loopback that can be cut, slowed down and blocked."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress


class Cable:
    """Passes bytes on to the first of its targets that takes a connection, each in its turn."""

    def __init__(self, targets: Callable[[], Sequence[int]]) -> None:
        """`targets` tells the ports of loopback that it leads to now."""
        self.port = 0
        self.delay = 0.0
        """Seconds by which everything comes later."""
        self._targets = targets
        self._turn = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = asyncio.Event()
        self._open.set()

    async def lay(self) -> None:
        """Begin to take connections, at a port of its own."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def remove(self) -> None:
        """Take no connections any more, and lose those that there are."""
        if self._server:
            self._server.close()
        self.unblock()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Lose every connection: both ends see a reset."""
        for writer in self._writers:
            writer.transport.abort()

    def block(self) -> None:
        """Hold everything back, and new connections too: neither end hears from the other."""
        self._open.clear()

    def unblock(self) -> None:
        self._open.set()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            await self._pass_on(reader, writer)
        except asyncio.CancelledError:
            pass  # a cancelled handler of a connection would be reported as a mistake
        finally:
            writer.transport.abort()
            self._writers.discard(writer)
            self._tasks.discard(task)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._open.wait()
        target = await self._reach()
        if target is None:
            return
        there, back = target
        self._writers.add(back)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._copy(reader, back))
                both.create_task(self._copy(there, writer))
        except* OSError:
            pass  # a reset of one end is one for the other
        finally:
            back.transport.abort()
            self._writers.discard(back)

    async def _reach(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        targets = self._targets()
        self._turn += 1
        for number in range(len(targets)):
            with suppress(OSError):
                port = targets[(self._turn + number) % len(targets)]
                return await asyncio.open_connection("127.0.0.1", port)
        return None

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            if self.delay:
                await asyncio.sleep(self.delay)
            await self._open.wait()
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
