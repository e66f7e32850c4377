"""What 10,000 connections of one process go through when the log, or the process, goes away.

    python -m benchmarks.restart            # 10,000; --connections for another number

Subscribers hold their connections while a ticker appends events. The log server is killed and comes
back, is replaced by an empty one, and then the serving process itself is killed and comes back. For
each moment the table tells how many connections are live, what the process has in memory, and what
the subscribers have seen: whether they came back with their positions, and what they missed.
"""

import argparse
import asyncio
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks import machine
from gateway.broker.broker import Broker
from gateway.broker.client import Clients
from gateway.broker.embedded import server_arguments
from gateway.broker.process import ServerProcess, find_binary
from gateway.config import BrokerConfig
from gateway.errors import BrokerUnavailable
from gateway.events import Event, Publication, encode, with_channel
from gateway.idempotency import Identity

CHANNEL = "ticks"
AWAY = 5.0
"""Seconds for which the log is away."""
PACE = 0.2
"""Seconds between two events."""
WINDOW_MS = 5000
"""Within which those come back who lost their connection without a word."""
PATIENCE = 120.0
"""Seconds that anything may take before the benchmark gives up."""
PORTS = range(20_000, 30_000)
"""Where the process listens: below the ports that the system gives to 10,000 clients."""
CONFIG = f"""
[[channels]]
pattern = "{CHANNEL}"
history = {{ size = 100_000, ttl = "1h" }}
"""


class Status(msgspec.Struct):
    """What the subscribers have seen."""

    live: int
    lowest: int
    """The number of an event that everybody has."""
    returns: int
    recovered: int
    gaps: int
    """Subscriptions that were told that something is missing."""
    missed: int
    """Events that somebody missed without having been told."""
    repeated: int


class Log:
    """A log server that can be killed, started again, and emptied."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.socket = directory / "s"
        self.url = f"unix://{self.socket}"
        self._process: ServerProcess | None = None

    def start(self) -> None:
        data = self.directory / "data"
        data.mkdir(exist_ok=True)
        log = self.directory / "server.log"
        self._process = ServerProcess(find_binary(), server_arguments(data, self.socket), log=log)

    def kill(self) -> None:
        if self._process:
            self._process.kill()

    def empty(self) -> None:
        shutil.rmtree(self.directory / "data")


class Ticker:
    """Appends events that are numbered, each exactly once, whatever the log goes through."""

    def __init__(self, log: Log) -> None:
        self.number = 0
        """Of the newest event that is in the log."""
        self._clients = Clients(log.url, timeout=5)
        self._log = Broker(BrokerConfig(), self._clients).events

    async def run(self) -> None:
        """Append until cancelled."""
        while True:
            number = self.number + 1
            event = Event("tick", id=str(number), source="/b", data={"n": number})
            encoded = with_channel(encode(event), CHANNEL)
            publication = Publication(CHANNEL, encoded, 100_000, 3_600_000)
            with suppress(BrokerUnavailable):
                await self._log.publish([(Identity(f"tick-{number}", "1"), [publication])])
                self.number = number
            await asyncio.sleep(PACE)


class Stage:
    """What runs, and the table that comes of it."""

    def __init__(self, directory: Path, connections: int) -> None:
        self.directory = directory
        self.connections = connections
        self.log = Log(directory)
        self.port = _free_port()
        self.table = Table("moment", "after", "live", "MiB", "returns", "recovered", "gaps told")
        self.table.add_column("missed untold")
        self.table.add_column("repeated")
        self._server: Process | None = None
        self._returner: Process | None = None

    async def serve(self) -> None:
        """Start the serving process, and return when it listens."""
        config = self.directory / "gateway.toml"
        config.write_text(CONFIG)
        self._server = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gateway", "serve", str(config), "--port", str(self.port)),
            stdout=PIPE,
            env=os.environ | {"GATEWAY_BROKER_URL": self.log.url, "COLUMNS": "200"},
        )
        assert self._server.stdout
        async for line in self._server.stdout:
            if b"Ctrl-C" in line:
                return
        raise SystemExit("expected the gateway to start, but it ended")

    async def kill_server(self) -> None:
        assert self._server
        self._server.kill()
        await self._server.wait()

    async def subscribe(self, program: Path) -> None:
        """Open all connections."""
        self._returner = await asyncio.create_subprocess_exec(
            *(program, str(self.port), CHANNEL, str(self.connections), str(WINDOW_MS)),
            stdin=PIPE,
            stdout=PIPE,
        )

    async def status(self) -> Status:
        """Ask the subscribers."""
        if not self._returner:
            return Status(0, 0, 0, 0, 0, 0, 0)
        assert self._returner.stdin
        assert self._returner.stdout
        self._returner.stdin.write(b"\n")
        async with asyncio.timeout(PATIENCE):
            line = await self._returner.stdout.readline()
        return msgspec.json.decode(line, type=Status)

    async def all_hear(self, ticker: Ticker) -> float:
        """Wait until everybody has an event that is appended from now on; return the seconds."""
        began = time.monotonic()
        wanted = ticker.number + 1
        async with asyncio.timeout(PATIENCE):
            while True:
                status = await self.status()
                if status.live == self.connections and status.lowest >= wanted:
                    return time.monotonic() - began
                await asyncio.sleep(0.02)

    async def note(self, moment: str, seconds: float | None = None) -> None:
        """Add a row about this moment."""
        status = await self.status()
        memory = "-"
        if self._server and self._server.returncode is None:
            memory = f"{machine.resident_bytes(self._server.pid) / 2**20:.0f}"
        after = "" if seconds is None else f"{seconds:.1f} s"
        seen = (status.returns, status.recovered, status.gaps, status.missed, status.repeated)
        self.table.add_row(moment, after, str(status.live), memory, *map(str, seen))

    async def close(self) -> None:
        for process in (self._returner, self._server):
            if process and process.returncode is None:
                process.send_signal(signal.SIGKILL)
                await process.wait()
        self.log.kill()


def _free_port() -> int:
    for port in random.sample(PORTS, len(PORTS)):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise SystemExit("expected a free port")


@asynccontextmanager
async def _ticking(log: Log) -> AsyncIterator[Ticker]:
    ticker = Ticker(log)
    task = asyncio.create_task(ticker.run())
    try:
        yield ticker
    finally:
        task.cancel()


async def main() -> None:
    options = _options()
    machine.allow_files(options.connections + 1000)
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gw-", dir="/tmp")))
        stage = Stage(directory, options.connections)
        stack.push_async_callback(stage.close)
        stage.log.start()
        await stage.serve()
        ticker = await stack.enter_async_context(_ticking(stage.log))
        await _play(stage, ticker, machine.compiled("returner", directory))
    console = Console(width=140)
    console.print(machine.describe())
    console.print(stage.table)


async def _play(stage: Stage, ticker: Ticker, returner: Path) -> None:
    """Let everything happen, one after the other, and note each moment."""
    await stage.note("nobody is there")
    await stage.subscribe(returner)
    await stage.note("all are there", await stage.all_hear(ticker))

    stage.log.kill()
    await asyncio.sleep(AWAY)
    await stage.note("log killed", AWAY)
    stage.log.start()
    await stage.note("log back: all hear again", await stage.all_hear(ticker))

    stage.log.kill()
    stage.log.empty()
    await asyncio.sleep(AWAY)
    stage.log.start()
    await stage.note("log emptied: all hear again", await stage.all_hear(ticker))

    await stage.kill_server()
    await stage.note("process killed")
    await stage.serve()
    await stage.note("process back: all hear again", await stage.all_hear(ticker))
    await asyncio.sleep(AWAY)
    await stage.note("later", AWAY)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.restart", description=__doc__)
    parser.add_argument("--connections", type=int, default=10_000)
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(main())
