"""How many events reach their subscribers for each second of one core, and how late."""

import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from benchmarks import machine
from benchmarks.appender import SIZE
from benchmarks.subjects import (
    Report,
    Server,
    Subscribers,
    Transport,
    appending,
    raw_loop,
    subscribed,
)

BURST = 20
"""Events of one append, which share a batch of the feed."""
STEPS = 300
"""Events of one run one at a time; one run in bursts is as many bursts."""
PACE = {1: 0.01, BURST: 0.02}
"""Seconds between appends where latency is measured: 100 events/s, or 1,000 events/s in bursts."""


@dataclass(frozen=True)
class Programs:
    """The compiled ones."""

    reader: Path
    raw_loop: Path


class Run(NamedTuple):
    """What one run gave."""

    rate: float
    """Deliveries for each second from the first to the last."""
    cpu_rate: float
    """Deliveries for each second of processor time that the server used."""
    p50_us: int
    p99_us: int


@dataclass
class Pairs:
    """Runs of the gateway, each with the run of the raw loop right before it."""

    transport: Transport
    burst: int
    runs: list[tuple[Run, Run]] = field(default_factory=list)
    """Raw loop, gateway."""

    def rates(self) -> list[float]:
        return [run.rate for _, run in self.runs]

    def cpu_rates(self) -> list[float]:
        return [run.cpu_rate for _, run in self.runs]

    def ratios(self) -> list[float]:
        return [run.rate / raw.rate for raw, run in self.runs]

    def cpu_ratios(self) -> list[float]:
        return [run.cpu_rate / raw.cpu_rate for raw, run in self.runs]


def kinds() -> list[Pairs]:
    """Return what is compared with the raw loop: both transports, singly and in bursts."""
    return [Pairs(transport, burst) for transport in _TRANSPORTS for burst in (1, BURST)]


_TRANSPORTS: tuple[Transport, ...] = ("ws", "sse")


def measure_round(
    programs: Programs, server: Server, kinds: list[Pairs], *, subscribers: int
) -> None:
    """Add one run to each kind, raw loop and gateway in turns: noise of the machine hits both."""
    for pairs in kinds:
        raw = run_raw(programs, subscribers)
        run = run_gateway(
            programs, server, pairs.transport, burst=pairs.burst, subscribers=subscribers
        )
        pairs.runs.append((raw, run))


def run_raw(programs: Programs, subscribers: int) -> Run:
    """One run of the raw loop: events of the same size, without a protocol around them."""
    with raw_loop(programs.raw_loop, subscribers, STEPS, SIZE) as server:
        readers = Subscribers(programs.reader, server, "ws", subscribers, STEPS)
        before = machine.cpu_seconds(server.pid)
        assert server.process.stdin
        server.process.stdin.write("g")
        server.process.stdin.flush()
        report = readers.report()
        run = _run(report, machine.cpu_seconds(server.pid) - before)
        readers.close()
    return run


def run_gateway(
    programs: Programs,
    server: Server,
    transport: Transport,
    *,
    burst: int,
    subscribers: int,
    interval: float = 0,
) -> Run:
    """One run of the gateway; with an interval at that pace, without one as fast as it can."""
    events = STEPS * burst
    with subscribed(programs.reader, server, transport, subscribers, events=events) as readers:
        before = machine.cpu_seconds(server.pid)
        with appending(server, readers.echo, events=events, burst=burst, interval=interval):
            report = readers.report()
            return _run(report, machine.cpu_seconds(server.pid) - before)


def latencies(
    programs: Programs, server: Server, *, subscribers: int
) -> Iterator[tuple[Transport, int, Run]]:
    """Yield transport, size of the bursts and a run at a pace that one core can keep."""
    for transport in _TRANSPORTS:
        for burst, interval in PACE.items():
            run = run_gateway(
                programs,
                server,
                transport,
                burst=burst,
                subscribers=subscribers,
                interval=interval,
            )
            yield transport, burst, run


def spread(values: list[float]) -> str:
    """Return the median, with the least and the greatest."""
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def _run(report: Report, cpu: float) -> Run:
    return Run(
        report.deliveries / report.seconds,
        report.deliveries / cpu,
        report.p50_us,
        report.p99_us,
    )
