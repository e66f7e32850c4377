"""Commands sent as fast as a gateway takes them, and what that costs it."""

import asyncio
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import uvloop

from benchmarks import machine
from benchmarks.subjects import Server

CONCURRENCY = 64
"""Connections, each with one command on its way."""
BODY = '{"sku":"tea"}'


class Request(NamedTuple):
    """One command to be sent."""

    path: str
    headers: Mapping[str, str]


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


def accepted(server: Server, request: Callable[[int], Request], count: int) -> Taken:
    """Send numbered commands, all of which must be accepted, and return what they took."""
    before = machine.cpu_seconds(server.pid)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        seconds = runner.run(_send_all(server, request, count))
    return Taken(count, seconds, machine.cpu_seconds(server.pid) - before)


async def _send_all(server: Server, request: Callable[[int], Request], count: int) -> float:
    numbers = iter(range(count))
    started = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(CONCURRENCY):
            tasks.create_task(_send_some(server, request, numbers))
    return time.perf_counter() - started


async def _send_some(
    server: Server, request: Callable[[int], Request], numbers: Iterator[int]
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    for number in numbers:
        path, headers = request(number)
        more = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        writer.write(
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{more}Content-Type: application/json\r\n"
            f"Content-Length: {len(BODY)}\r\n\r\n{BODY}".encode()
        )
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
        body = await reader.readexactly(length)
        if " 202 " not in head:
            raise SystemExit(f"expected 202 for {path} but got {head} {body!r}")
    writer.close()


def print_ratios(what: str, rounds: Sequence[Mapping[str, Taken]]) -> None:
    """Print each variant beside the first, by the processor time that a command takes."""
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
