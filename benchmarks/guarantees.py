"""What each guarantee costs, as ratios to a command without it, in one run.

    make bench-guarantees

Commands per second through `POST` on one core, 64 at a time: plain, with an idempotency key, with
each durability. Then commands per second that one worker carries out: without a key, with many
keys, and all with the same one. Every variant has its turn in every round, since the machine's
speed drifts; the ratios are of the same round.
"""

import argparse
import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import redis
import uvloop

from benchmarks import machine
from benchmarks.subjects import PATIENCE, Server, environment, gateway, wait_until
from gateway.broker.keys import Keys
from gateway.configfile import load

CONCURRENCY = 64
POSTS = 3000
CARRIED = 2000

CONFIG = """
[broker]
partitions = 4
max_backlog = 10000000
[worker]
handlers = ["handlers"]
[[commands]]
path = "/plain"
type = "do"
stream = "work"
[[commands]]
path = "/keyed/{name}"
type = "do"
stream = "work"
key = "path.name"
[[commands]]
path = "/memory"
type = "do"
stream = "work"
durability = "memory"
[[commands]]
path = "/fsync"
type = "do"
stream = "work"
durability = "fsync"
"""

HANDLERS = """
from gateway import Command, handles

@handles("do")
async def do(command: Command) -> None:
    pass
"""


class Variant(NamedTuple):
    """One way of posting a command."""

    name: str
    path: Callable[[int], str]
    idempotent: bool = False


POSTED = (
    Variant("plain", lambda _: "/plain"),
    Variant("idempotency key", lambda _: "/plain", idempotent=True),
    Variant("durability memory", lambda _: "/memory"),
    Variant("durability fsync", lambda _: "/fsync"),
)
ORDERED = (
    Variant("no key", lambda _: "/plain"),
    Variant("1000 keys", lambda number: f"/keyed/k-{number % 1000}"),
    Variant("one key", lambda _: "/keyed/k"),
)


class Taken(NamedTuple):
    """What a number of commands took."""

    commands: int
    seconds: float
    cpu: float
    """Seconds of the processor, of the process that did the work."""

    @property
    def per_second(self) -> float:
        return self.commands / self.seconds

    @property
    def per_cpu(self) -> float:
        return self.commands / self.cpu


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds: int = parser.parse_args().rounds
    machine.check()
    print(machine.describe())
    print(f"load before: {os.getloadavg()[0]:.2f} (an idle machine has less than 0.2)\n")
    with tempfile.TemporaryDirectory(prefix="gw-", dir="/tmp") as folder:
        config = Path(folder) / "gateway.toml"
        config.write_text(CONFIG)
        (Path(folder) / "handlers.py").write_text(HANDLERS)
        with gateway("serve", config=config) as server:
            results = [{v.name: _accept(server, v) for v in POSTED} for _ in range(rounds)]
        _print("accepted", results)
        with gateway("serve", config=config) as server:
            results = [{v.name: _carry(server, config, v) for v in ORDERED} for _ in range(rounds)]
        _print("carried out", results)


def _accept(server: Server, variant: Variant) -> Taken:
    before = machine.cpu_seconds(server.pid)
    seconds = _post(server, variant, POSTS)
    return Taken(POSTS, seconds, machine.cpu_seconds(server.pid) - before)


def _post(server: Server, variant: Variant, count: int) -> float:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_post_all(server, variant, count))


async def _post_all(server: Server, variant: Variant, count: int) -> float:
    """Post commands, some at a time, each on a connection that is kept. Returns the seconds."""
    numbers = iter(range(count))
    started = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(CONCURRENCY):
            tasks.create_task(_post_some(server, variant, numbers))
    return time.perf_counter() - started


async def _post_some(server: Server, variant: Variant, numbers: Iterator[int]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    for number in numbers:
        key = f"Idempotency-Key: {uuid.uuid4()}\r\n" if variant.idempotent else ""
        writer.write(
            f"POST {variant.path(number)} HTTP/1.1\r\nHost: localhost\r\n{key}"
            "Content-Type: application/json\r\nContent-Length: 13\r\n\r\n"
            '{"sku":"tea"}'.encode()
        )
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
        body = await reader.readexactly(length)
        if " 202 " not in head:
            raise SystemExit(f"expected 202 for {variant.name} but got {head} {body!r}")
    writer.close()


def _carry(server: Server, config: Path, variant: Variant) -> Taken:
    """Fill the log with commands, then let one worker carry them out."""
    _post(server, variant, CARRIED)
    with contextlib.closing(_Log(server, config)) as log, _worker(server, config) as process:
        wait_until(lambda: log.backlog() < CARRIED)  # it has begun
        before, started, count = (
            machine.cpu_seconds(process.pid),
            time.perf_counter(),
            log.backlog(),
        )
        wait_until(lambda: not log.backlog())
        return Taken(
            count, time.perf_counter() - started, machine.cpu_seconds(process.pid) - before
        )


class _Log:
    """The log behind a server, to see what waits in it."""

    def __init__(self, server: Server, config: Path) -> None:
        broker = load(config).broker
        self._redis = redis.Redis(unix_socket_path=str(server.data_dir / "server.sock"))
        keys = Keys(broker.namespace)
        self._partitions = [keys.commands("work", number) for number in range(broker.partitions)]

    def backlog(self) -> int:
        return sum(int(str(self._redis.xlen(each))) for each in self._partitions)

    def close(self) -> None:
        self._redis.close()


@contextlib.contextmanager
def _worker(server: Server, config: Path) -> Iterator["subprocess.Popen[bytes]"]:
    command = ["-m", "gateway", "work", str(config), "--data-dir", str(server.data_dir)]
    process = subprocess.Popen(
        [sys.executable, *command],
        env=environment(),
        preexec_fn=lambda: os.sched_setaffinity(0, {machine.SERVER_CORE}),
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(PATIENCE)


def _print(what: str, rounds: list[dict[str, Taken]]) -> None:
    first = next(iter(rounds[0]))
    print(f"{what:18} per second   per CPU-second   x {first}: median (least, greatest)")
    for name in rounds[0]:
        taken = [each[name] for each in rounds]
        ratios = [each[name].per_cpu / each[first].per_cpu for each in rounds]
        print(
            f"{name:18} {statistics.median(each.per_second for each in taken):10,.0f}"
            f"   {statistics.median(each.per_cpu for each in taken):14,.0f}"
            f"   {statistics.median(ratios):.2f} ({min(ratios):.2f}, {max(ratios):.2f})"
        )
    print()


if __name__ == "__main__":
    main()
