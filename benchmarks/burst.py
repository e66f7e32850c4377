"""What a burst from one address does to somebody else, as a ratio of latencies, in one run.

    make bench-burst

Somebody posts commands at a steady pace; meanwhile another address sends 10,000 of them, over many
connections and as fast as they are answered. Both come through a proxy that is trusted, so that
one machine can be two addresses. In every round the steady one is alone first. The same once more
with `requests_per_ip` set to a number that stops nobody.
"""

import argparse
import asyncio
import multiprocessing
import os
import random
import statistics
import tempfile
import time
from collections.abc import Mapping
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import NamedTuple

import uvloop

from benchmarks import machine
from benchmarks.subjects import Server, gateway

BURST = 10_000
CONNECTIONS = 50
PACE = 100
"""Commands a second of the one who is not to be disturbed."""
ALONE = 15.0
"""Seconds for which it is alone, in each round."""
REST = 1.0
"""Seconds after a burst in which the server closes what it left, before somebody is alone again."""
AT_MOST = 1.5
"""Times the latency that it has alone, at the 99th percentile."""

CONFIG = """
[broker]
max_backlog = 10000000
[server]
trusted_proxies = ["127.0.0.1"]
requests_per_ip = "{rate}"
[[commands]]
path = "/orders"
type = "order.place"
stream = "orders"
[[limits]]
name = "each"
per = "ip"
rate = "300/s"
"""
RATES = {"as it is": "200/s", "without the first line": "1000000/s"}


class Round(NamedTuple):
    """Latencies in milliseconds, at the 99th percentile."""

    alone: float
    disturbed: float
    seconds: float
    """That the burst took."""

    @property
    def ratio(self) -> float:
        return self.disturbed / self.alone


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    count: int = parser.parse_args().rounds
    machine.check()
    print(machine.describe())
    print(f"load before: {os.getloadavg()[0]:.2f} (an idle machine has less than 0.2)\n")
    print("requests_per_ip   p99 alone   p99 beside the burst    burst   x alone (least, greatest)")
    rounds = {name: _measure(rate, count) for name, rate in RATES.items()}
    ratio = statistics.median(each.ratio for each in rounds["as it is"])
    verdict = "meets" if ratio <= AT_MOST else "MISSES"
    print(f"\na burst makes another's p99 {ratio:.2f} of what it was: {verdict} at most {AT_MOST}")


def _measure(rate: str, count: int) -> list[Round]:
    with tempfile.TemporaryDirectory(prefix="gw-", dir="/tmp") as folder:
        config = Path(folder) / "gateway.toml"
        config.write_text(CONFIG.format(rate=rate))
        with gateway("serve", config=config) as server:
            rounds = [_round(server, number) for number in range(count)]
    ratios = [each.ratio for each in rounds]
    print(
        f"{rate:16} {statistics.median(each.alone for each in rounds):6.1f} ms"
        f"   {statistics.median(each.disturbed for each in rounds):17.1f} ms"
        f"   {statistics.median(each.seconds for each in rounds):4.1f} s"
        f"   {statistics.median(ratios):5.2f} ({min(ratios):.2f}, {max(ratios):.2f})",
        flush=True,
    )
    return rounds


def _round(server: Server, number: int) -> Round:
    _times(server.port, 0.5, None)  # so that nobody pays for what is done once
    alone = _times(server.port, ALONE, None)
    over = multiprocessing.Event()
    flood = multiprocessing.Process(target=_flood, args=(server.port, f"198.51.100.{number}", over))
    began = time.monotonic()
    flood.start()
    disturbed = _times(server.port, ALONE, over)
    seconds = time.monotonic() - began
    flood.join()
    time.sleep(REST)
    return Round(_p99(alone), _p99(disturbed), seconds)


def _p99(times: list[float]) -> float:
    return statistics.quantiles(times, n=100)[98] * 1000


def _times(port: int, seconds: float, over: Event | None) -> list[float]:
    """Post at a steady pace for so long, or until it is over; return what each took."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_pace(port, seconds, over))


async def _pace(port: int, seconds: float, over: Event | None) -> list[float]:
    client = await _Client.of(port, "203.0.113.1")
    found = []
    end = time.monotonic() + seconds
    while time.monotonic() < end if over is None else not over.is_set():
        await asyncio.sleep(random.uniform(0, 2 / PACE))
        began = time.perf_counter()
        status = await client.post()
        found.append(time.perf_counter() - began)
        if status != 202:
            raise SystemExit(f"expected 202 but got {status}")
    client.close()
    return found


def _flood(port: int, address: str, over: Event) -> None:
    os.nice(10)  # what it needs itself is not to be measured
    asyncio.run(_burst(port, address))
    over.set()


async def _burst(port: int, address: str) -> None:
    numbers = iter(range(BURST))
    clients = [await _Client.of(port, address) for _ in range(CONNECTIONS)]

    async def send(client: "_Client") -> None:
        for _ in numbers:
            await client.post()

    await asyncio.gather(*map(send, clients))


class _Client:
    """One connection of an address, through the proxy that is trusted."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, headers: Mapping[str, str]
    ) -> None:
        self._reader = reader
        self._writer = writer
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._request = f"POST /orders HTTP/1.1\r\n{head}Content-Length: 2\r\n\r\n{{}}".encode()

    @classmethod
    async def of(cls, port: int, address: str) -> "_Client":
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        return cls(reader, writer, {"Host": "localhost", "X-Forwarded-For": address})

    async def post(self) -> int:
        """Post a command and return the status of the answer."""
        self._writer.write(self._request)
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = head.partition(b"content-length: ")[2].partition(b"\r\n")[0]
        await self._reader.readexactly(int(length))
        return int(head.split()[1])

    def close(self) -> None:
        self._writer.close()


if __name__ == "__main__":
    main()
