"""A way to the broker on which something happens at a chosen request: to whoever sends it."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from enum import Enum
from pathlib import Path

from gateway.broker.client import Clients
from gateway.broker.scripts import script, scripts


class Moment(Enum):
    """Where a request is when it happens."""

    BEFORE = "before the broker has it"
    TORN = "when the broker has half of it"
    AFTER = "when it is done, and nobody knows"


class Road:
    """Passes bytes on between workers and a server, until one of them asks for a script."""

    def __init__(self, server: Path) -> None:
        self._server = server
        self._mark = b""
        self._moment = Moment.BEFORE
        self._happens: Callable[[], Awaitable[object]] = self._nothing
        self._writers: set[asyncio.StreamWriter] = set()
        self.url = ""
        self.happened = asyncio.Event()
        self.asked: list[list[str]] = []
        """The scripts of each round trip, in their order."""

    def arm(self, name: str, moment: Moment, happens: Callable[[], Awaitable[object]]) -> None:
        """At the next request for the script, do something; the bytes wait for its end.

        If what happened is true they are passed on then, otherwise never.
        """
        self._mark = script(name).digest.encode()
        self._moment, self._happens = moment, happens
        self.happened.clear()

    async def _nothing(self) -> None: ...

    @asynccontextmanager
    async def clients(self) -> AsyncIterator[Clients]:
        """Give clients that go this way."""
        clients = Clients(self.url, timeout=5)
        try:
            yield clients
        finally:
            await clients.close()

    def cut(self) -> None:
        """Break off all connections."""
        for writer in self._writers:
            writer.transport.abort()

    @asynccontextmanager
    async def open(self) -> AsyncIterator["Road"]:
        server = await asyncio.start_server(self._pass_on, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            self.cut()
            await server.wait_closed()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, requests = await asyncio.open_unix_connection(str(self._server))
        self._writers |= {writer, requests}
        passed = asyncio.Event()
        """Whether answers may go back. They may not once it happened after the request."""
        passed.set()
        back = asyncio.create_task(self._copy_back(answers, writer, passed))
        with suppress(OSError):
            while data := await reader.read(1 << 20):
                self.asked.append(_scripts_in(data))
                await self._forward(data, requests, passed)
                await requests.drain()
        requests.close()
        await back
        self._writers -= {writer, requests}

    async def _copy_back(
        self, answers: asyncio.StreamReader, writer: asyncio.StreamWriter, passed: asyncio.Event
    ) -> None:
        with suppress(OSError):
            while data := await answers.read(1 << 20):
                if not passed.is_set():
                    await self._happen()
                    passed.set()
                writer.write(data)
                await writer.drain()
        writer.close()

    async def _forward(
        self, data: bytes, requests: asyncio.StreamWriter, passed: asyncio.Event
    ) -> None:
        if not self._mark or self._mark not in data:
            requests.write(data)
        elif self._moment is Moment.AFTER:
            self._mark = b""
            passed.clear()
            requests.write(data)
        else:
            self._mark = b""
            half = len(data) // 2 if self._moment is Moment.TORN else 0
            requests.write(data[:half])
            if await self._happen():
                requests.write(data[half:])
            else:
                requests.transport.abort()

    async def _happen(self) -> object:
        goes_on = await self._happens()
        self.happened.set()
        return goes_on


def _scripts_in(data: bytes) -> list[str]:
    """Return the names of the scripts that a request calls."""
    names = {each.digest.encode(): each.name for each in scripts().values()}
    return [names[digest] for digest in re.findall(rb"\b[0-9a-f]{40}\b", data) if digest in names]
