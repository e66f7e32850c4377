"""The figures of the README: fan-out beside a raw `send()` loop, latency, memory, handshakes.

    make bench              everything, in a few minutes
    make bench ARGS=--quick the same in one, less exact

See README.md beside this file for how to read what it prints.
"""

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks import deliveries, idle, machine, posting
from benchmarks.appender import SIZE
from benchmarks.deliveries import BURST, Pairs, Programs, spread
from benchmarks.subjects import Transport, gateway

NAMES: dict[Transport, str] = {"ws": "WebSocket", "sse": "SSE"}

AT_LEAST = {1: 0.80, BURST: 8.0}
"""Times the raw loop: one event at a time, and in bursts."""
AT_MOST_RESIDENT = 5 * 1024
"""Bytes for each idle connection."""
AT_LEAST_OPENED = 2500
"""WebSocket connections for each second."""
AT_MOST_MEDIAN = 5.0
"""Milliseconds from `POST` to socket, on an idle machine."""


def main() -> None:
    """Measure and print everything that was asked for."""
    options = _options()
    machine.check()
    machine.allow_files(idle.FILES)
    sections: dict[str, Callable[[Programs, argparse.Namespace], None]] = {
        "deliveries": _deliveries,
        "connections": _connections,
        "post": _posts,
    }
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        programs = Programs(machine.compiled("reader", folder), machine.compiled("rawloop", folder))
        print(machine.describe())
        print(f"load before: {os.getloadavg()[0]:.2f} (an idle machine has less than 0.2)")
        for name in options.only or sections:
            sections[name](programs, options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="pairs of runs of each kind")
    parser.add_argument("--quick", action="store_const", const=2, dest="rounds", help="2 rounds")
    parser.add_argument("--subscribers", type=int, default=1000)
    parser.add_argument(
        "--only",
        nargs="+",
        choices=["deliveries", "connections", "post"],
        help="leave out the rest",
    )
    return parser.parse_args()


def _deliveries(programs: Programs, options: argparse.Namespace) -> None:
    subscribers = options.subscribers
    print(
        f"\nFan-out: {subscribers:,} subscribers, {SIZE}-byte events, from the Redis "
        f"stream to the sockets,\nthe server on one core; median (least-greatest) of "
        f"{options.rounds} pairs with the raw loop\n"
    )
    kinds = deliveries.kinds()
    with gateway("serve") as server:
        for _ in range(options.rounds):
            deliveries.measure_round(programs, server, kinds, subscribers=subscribers)
        _print_rates(kinds)
        print(f"\n{'Latency from append to socket':42}{'p50':>10}{'p99':>10}")
        for transport, burst, run in deliveries.latencies(
            programs, server, subscribers=subscribers
        ):
            rate = burst / deliveries.PACE[burst]
            name = f"{_name(transport, burst)}, {rate:,.0f} events/s"
            print(f"{name:42}{run.p50_us / 1000:7.1f} ms{run.p99_us / 1000:7.1f} ms")


def _print_rates(kinds: list[Pairs]) -> None:
    raw = [raw for pairs in kinds for raw, _ in pairs.runs]
    print(f"{'':28}{'deliveries/s':>13}{'x raw loop':>21}{'per CPU-second':>16}{'x raw loop':>21}")
    print(
        f"{'raw send() loop':28}{statistics.median(run.rate for run in raw):13,.0f}{'1':>21}"
        f"{statistics.median(run.cpu_rate for run in raw):16,.0f}{'1':>21}"
    )
    for pairs in kinds:
        print(
            f"{_name(pairs.transport, pairs.burst):28}{statistics.median(pairs.rates()):13,.0f}"
            f"{spread(pairs.ratios()):>21}{statistics.median(pairs.cpu_rates()):16,.0f}"
            f"{spread(pairs.cpu_ratios()):>21}"
            f"  {_verdict(statistics.median(pairs.ratios()), at_least=AT_LEAST[pairs.burst])}"
        )


def _name(transport: Transport, burst: int) -> str:
    return f"{NAMES[transport]}, {'one at a time' if burst == 1 else f'bursts of {burst}'}"


def _connections(programs: Programs, options: argparse.Namespace) -> None:
    print(f"\n{'New connections, subscribed':42}{'each second':>13}{'per CPU-second':>16}")
    with gateway("serve") as server:
        for transport, name in NAMES.items():
            opened = idle.opening(programs.reader, server, transport, rounds=options.rounds)
            wanted = _verdict(opened.rate, at_least=AT_LEAST_OPENED) if transport == "ws" else ""
            print(f"{name:42}{opened.rate:13,.0f}{opened.cpu_rate:16,.0f}  {wanted}")
    print(f"\nResident memory for each of {idle.IDLE:,} idle connections")
    for transport, name in NAMES.items():
        with gateway("serve") as server:
            resident = idle.resident_bytes(programs.reader, server, transport)
        print(f"{name:42}{resident:7,.0f} bytes  {_verdict(resident, at_most=AT_MOST_RESIDENT)}")


def _posts(programs: Programs, options: argparse.Namespace) -> None:
    print(f"\n{'From POST to the socket, handler included':42}{'median':>10}{'p99':>10}")
    with gateway("run", pinned=False) as server:
        for transport, name in NAMES.items():
            latency = posting.latency(server, transport)
            verdict = _verdict(latency.median, at_most=AT_MOST_MEDIAN)
            print(f"{name:42}{latency.median:7.1f} ms{latency.p99:7.1f} ms  {verdict}")


def _verdict(value: float, *, at_least: float | None = None, at_most: float | None = None) -> str:
    if at_least is not None:
        return f"{'meets' if value >= at_least else 'MISSES'} at least {at_least:g}"
    assert at_most is not None
    return f"{'meets' if value <= at_most else 'MISSES'} at most {at_most:g}"


if __name__ == "__main__":
    main()
