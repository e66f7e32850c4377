"""What each guarantee costs, as ratios to a command without it, in one run.

    make bench-guarantees

Commands per second through `POST` on one core, 64 at a time: plain, with an idempotency key, with
each durability. Then commands per second that one worker carries out: without a key, with many
keys, and all with the same one. Every variant has its turn in every round, since the machine's
speed drifts; the ratios are of the same round.
"""

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import redis

from benchmarks import machine
from benchmarks.sending import Request, Taken, accepted, print_ratios
from benchmarks.subjects import PATIENCE, Server, environment, gateway, wait_until
from gateway.broker.keys import Keys
from gateway.configfile import load

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
        print_ratios("accepted", results)
        with gateway("serve", config=config) as server:
            results = [{v.name: _carry(server, config, v) for v in ORDERED} for _ in range(rounds)]
        print_ratios("carried out", results)


def _accept(server: Server, variant: Variant) -> Taken:
    return accepted(server, lambda number: _request(variant, number), POSTS)


def _request(variant: Variant, number: int) -> Request:
    headers = {"Idempotency-Key": str(uuid.uuid4())} if variant.idempotent else {}
    return Request(variant.path(number), headers)


def _carry(server: Server, config: Path, variant: Variant) -> Taken:
    """Fill the log with commands, then let one worker carry them out."""
    accepted(server, lambda number: _request(variant, number), CARRIED)
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
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: os.sched_setaffinity(0, {machine.SERVER_CORE}),
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(PATIENCE)


if __name__ == "__main__":
    main()
