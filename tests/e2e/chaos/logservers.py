"""Log servers that are treated badly: one that the harness runs, one that the gateway embeds."""

import asyncio
import os
import resource
import shutil
import signal
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from gateway.broker.client import Clients
from gateway.broker.embedded import EmbeddedServer, server_arguments
from gateway.broker.keys import Keys
from gateway.broker.process import ServerProcess
from gateway.channels import EntryId
from tests.e2e.chaos.history import Entry, Life, Loss
from tests.servers import free_port

PATIENCE = 15.0
"""Seconds in which a server must answer after it was started."""
ROOM = 2000
"""Bytes that still fit on a disk that is about to be full."""
TINY = 1 << 20
"""Bytes of memory that are less than what a log needs."""
PAGE = 5000
"""Entries of the log that are read at a time."""
KEYS = Keys("gateway")


class LogServer(ABC):
    """A server that the harness reaches around all cables."""

    def __init__(self, directory: Path, socket: Path) -> None:
        self.directory = directory
        self.socket = socket
        self.suffering = asyncio.Lock()
        """Whoever does something to it holds this: a server may take long to start."""
        self._clients = Clients(f"unix://{socket}", timeout=PATIENCE)

    @abstractmethod
    def pid(self) -> int | None:
        """Return the server's process id; None if there is no server."""

    @abstractmethod
    async def fail(self, seconds: float) -> None:
        """Kill it, so that it is gone for some seconds, or until the gateway starts it anew."""

    @abstractmethod
    async def end(self) -> None:
        """End it for good."""

    async def pause(self, seconds: float) -> None:
        """Let it stand still for some seconds."""
        pid = self.pid()
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
                await asyncio.sleep(seconds)
                os.kill(pid, signal.SIGCONT)

    async def answers(self) -> None:
        """Return when it answers."""
        await _until_it_answers(self._clients.commands)

    async def done(self, stream: str, partitions: int) -> None:
        """Return when every command is done. Done commands are no longer in their stream."""
        while True:
            pipe = self._clients.commands.pipeline(transaction=False)
            for partition in range(partitions):
                pipe.xlen(KEYS.commands(stream, partition))
            if not any(await pipe.execute()):
                return
            await asyncio.sleep(0.05)

    async def life(self) -> Life:
        """Read the whole log."""
        return await _life(self._clients.commands)

    async def close(self) -> None:
        """Let go of it."""
        await self._clients.close()


class OwnServer(LogServer):
    """A server that the harness runs."""

    def __init__(self, binary: Path, directory: Path, *, fsync: str) -> None:
        super().__init__(directory / "data", directory / "log.sock")
        self.port = 0
        """Another one each time that it is started: the old one may be somebody else's by then."""
        self.losses: list[Loss] = []
        self.former: list[Path] = []
        """Where the data of logs is that were replaced."""
        self._binary = binary
        self._fsync = fsync
        self._process: ServerProcess | None = None

    async def start(self) -> None:
        self.directory.mkdir(exist_ok=True)
        self.port = free_port()
        self._process = _server(
            self._binary, self.directory, self.socket, fsync=self._fsync, port=self.port
        )
        await self.answers()

    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    async def fail(self, seconds: float) -> None:
        self._kill()
        await asyncio.sleep(seconds)
        await self.start()

    async def end(self) -> None:
        self._kill()

    def _kill(self) -> None:
        process, self._process = self._process, None
        if process:
            process.kill()

    async def fill_disk(self, seconds: float) -> None:
        """Let nothing more be written to its file for some seconds.

        The limit is one of the process, which needs no rights. A server that flushes always gives
        up when it cannot; whoever runs it starts it again when there is room.
        """
        assert self._process
        sizes = [file.stat().st_size for file in self.directory.glob("appendonlydir/*.incr.aof")]
        _, hard = resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, (max(sizes) + ROOM, hard))
        await asyncio.sleep(seconds)
        if self._process.ended():
            await self.start()
        else:
            resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, (hard, hard))

    async def fill_memory(self, seconds: float) -> None:
        """Let it have no memory for anything new for some seconds."""
        await self._configure("maxmemory", TINY)
        await asyncio.sleep(seconds)
        await self._configure("maxmemory", 0)

    async def _configure(self, name: str, value: int) -> None:
        await self._clients.commands.config_set(name, value)

    async def empty(self, seconds: float) -> None:
        """Replace it by an empty one, after some seconds without any."""
        await self._replace(seconds, by=None)
        self.losses.append(Loss(0.0, time.monotonic()))

    async def set_back(self, seconds: float) -> None:
        """Replace its data by a copy of them that is some seconds old, as from a backup.

        A replica that was promoted before it had everything looks just like it.
        """
        since = time.monotonic()
        copy = self.directory.with_name("copy")
        shutil.copytree(self.directory / "appendonlydir", copy / "appendonlydir")
        await asyncio.sleep(seconds)
        await self._replace(0.5, by=copy)
        self.losses.append(Loss(since, time.monotonic()))

    async def _replace(self, seconds: float, *, by: Path | None) -> None:
        self._kill()
        former = self.directory.with_name(f"former-{len(self.former)}")
        shutil.move(self.directory, former)
        self.former.append(former)
        if by is not None:
            shutil.move(by, self.directory)
        await asyncio.sleep(seconds)
        await self.start()

    async def former_lives(self) -> list[Life]:
        """Read the logs that were replaced."""
        return [await self._former_life(directory) for directory in self.former]

    async def _former_life(self, directory: Path) -> Life:
        socket = directory.with_suffix(".sock")
        process = _server(self._binary, directory, socket, fsync="no", port=0)
        clients = Clients(f"unix://{socket}", timeout=PATIENCE)
        try:
            await _until_it_answers(clients.commands)
            return await _life(clients.commands)
        finally:
            await clients.close()
            process.kill()


class EmbeddedLog(LogServer):
    """The server that the processes of the gateway run and share. It dies with its owner."""

    def __init__(self, directory: Path) -> None:
        data = directory / "data"
        super().__init__(data, EmbeddedServer(data).socket_path)

    def pid(self) -> int | None:
        with suppress(OSError, ValueError):
            return int((self.directory / "server.pid").read_text())
        return None

    async def fail(self, seconds: float) -> None:
        pid = self.pid()
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    async def end(self) -> None:
        await self.fail(0)


def _server(binary: Path, directory: Path, socket: Path, *, fsync: str, port: int) -> ServerProcess:
    further = {
        "port": str(port),
        "bind": "127.0.0.1",
        "auto-aof-rewrite-percentage": "0",  # a copy of the file is a copy of the log
    }
    arguments = [part for name, value in further.items() for part in (f"--{name}", value)]
    return ServerProcess(
        binary,
        [*server_arguments(directory, socket, fsync=fsync), *arguments],
        log=directory.with_suffix(".log"),
    )


async def _until_it_answers(redis: Redis) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            with suppress(OSError, RedisError):
                await redis.ping()
                return
            await asyncio.sleep(0.01)


async def _life(redis: Redis) -> Life:
    epoch: Any = await redis.hget(KEYS.log, "epoch")
    entries: list[Entry] = []
    cursor: Any = "-"
    while page := await _page(redis, cursor):
        entries += [_entry(id, fields) for id, fields in page]
        cursor = b"(" + page[-1][0]
    return Life(epoch.decode(), entries)


async def _page(redis: Redis, cursor: Any) -> Any:
    return await redis.xrange(KEYS.events, cursor, "+", count=PAGE)


def _entry(id: bytes, fields: dict[bytes, bytes]) -> Entry:
    event = msgspec.json.decode(fields[b"e"]) if fields[b"e"] else {}
    return Entry(EntryId.parse(id), int(fields[b"n"]), fields[b"c"].decode(), event)
