"""What is measured: the real gateway as its command line runs it, and the raw loop beside it."""

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from benchmarks import machine
from gateway.resources import example_config

PATIENCE = 60.0
"""Seconds that anything may take before the benchmark gives up."""
CHANNEL = "orders"
"""A channel of the example, with history like any other."""

Transport = Literal["ws", "sse"]
PATHS: dict[Transport, str] = {
    "ws": f"/ws?channel={CHANNEL}",
    "sse": f"/sse?channel={CHANNEL}",
}


@dataclass(frozen=True)
class Server:
    """A server that runs, on a core of its own."""

    process: "subprocess.Popen[str]"
    port: int
    data_dir: Path

    @property
    def pid(self) -> int:
        return self.process.pid


class Report(msgspec.Struct):
    """What the reader says at its end."""

    deliveries: int
    bytes: int
    seconds: float
    """From the first delivery to the last."""
    p50_us: int
    p99_us: int
    cpu: float


@contextlib.contextmanager
def gateway(
    command: Literal["serve", "run"], *, config: Path | None = None, pinned: bool = True
) -> Iterator[Server]:
    """Run `gateway serve` or `gateway run` with an embedded log of its own.

    It runs the example, unless another configuration is given. Pinned, the gateway has one core;
    the log server is on the other, with all the rest.
    """
    with tempfile.TemporaryDirectory(prefix="gw-", dir="/tmp", ignore_cleanup_errors=True) as data:
        log = Path(data) / "gateway.log"
        with log.open("w") as errors:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "gateway", command, str(config or example_config())),
                    *("--port", "0", "--data-dir", data),
                ],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=environment(),
            )
        try:
            port = _announced_port(process, log)
            if pinned:
                machine.pin(process.pid, machine.SERVER_CORE)
                for child in machine.children(process.pid):
                    machine.pin(child, machine.READER_CORE)
            yield Server(process, port, Path(data))
        finally:
            _end(process)


def environment() -> dict[str, str]:
    """This process's, without what would configure the gateway otherwise than the example does."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    paths = [str(machine.HERE.parent), *filter(None, [kept.get("PYTHONPATH")])]
    return kept | {"PYTHONPATH": os.pathsep.join(paths), "COLUMNS": "200"}


def _announced_port(process: "subprocess.Popen[str]", log: Path) -> int:
    assert process.stdout
    for line in process.stdout:
        if found := re.search(r"ws://[^:]+:(\d+)/ws", line):
            return int(found[1])
    raise SystemExit(f"expected the gateway to start, but it ended:\n{log.read_text()}")


def _end(process: "subprocess.Popen[str]") -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()


@contextlib.contextmanager
def raw_loop(program: Path, subscribers: int, events: int, size: int) -> Iterator[Server]:
    """Run the raw loop; it sends when it gets a byte, and ends when its input does."""
    process = subprocess.Popen(
        [program, str(subscribers), str(events), str(size)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {machine.SERVER_CORE}),
    )
    assert process.stdin
    assert process.stdout
    try:
        yield Server(process, int(process.stdout.readline()), Path())
    finally:
        process.stdin.close()
        process.wait(PATIENCE)


class Subscribers:
    """Many subscriptions in a process of their own, all of which were answered."""

    def __init__(
        self, program: Path, server: Server, transport: Transport, count: int, events: int
    ) -> None:
        """Open them. With 0 events they stay until `close`."""
        echo_out, echo_in = os.pipe()
        self.echo = echo_out
        """Gives a byte for each event as soon as somebody has it."""
        self._process = subprocess.Popen(
            [
                *(program, str(server.port), PATHS[transport], transport),
                *(str(count), str(events), str(PATIENCE), str(echo_in)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=[echo_in],
            preexec_fn=lambda: os.sched_setaffinity(0, {machine.READER_CORE}),
        )
        os.close(echo_in)
        self.seconds = float(self._line().removeprefix("open "))
        """That it took to open them all."""

    def report(self) -> Report:
        """Wait until every event has come to everybody."""
        return msgspec.json.decode(self._line(), type=Report)

    def close(self) -> None:
        os.close(self.echo)
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(PATIENCE)

    def _line(self) -> str:
        assert self._process.stdout
        ready, _, _ = select.select([self._process.stdout], [], [], PATIENCE)
        line = self._process.stdout.readline() if ready else ""
        if not line:
            self._process.kill()
            raise SystemExit("the subscribers did not get what they were waiting for")
        return line


@contextlib.contextmanager
def subscribed(
    program: Path, server: Server, transport: Transport, count: int, *, events: int = 0
) -> Iterator[Subscribers]:
    """Open subscriptions, and at the end wait until the server has forgotten them."""
    before = machine.open_files(server.pid)
    subscribers = Subscribers(program, server, transport, count, events)
    try:
        yield subscribers
    finally:
        subscribers.close()
        wait_until(lambda: machine.open_files(server.pid) <= before)


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for something that the server does by itself."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"waited in vain for {PATIENCE:g} s")
        time.sleep(0.01)


@contextlib.contextmanager
def appending(
    server: Server, echo: int, *, events: int, burst: int, interval: float
) -> Iterator[None]:
    """Append events by another process, which reads from `echo` when the one before has come."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "benchmarks.appender"),
            *(str(example_config()), str(server.data_dir)),
            *(CHANNEL, str(events), str(burst), str(interval)),
        ],
        stdin=echo,
        env=environment(),
        preexec_fn=lambda: os.sched_setaffinity(0, {machine.READER_CORE}),
    )
    try:
        yield
        process.wait(PATIENCE)
    finally:
        process.kill()
        process.wait()
