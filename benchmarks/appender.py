"""A process of its own that appends events to the log, as a worker does: through the append script.

    python -m benchmarks.appender CONFIG DATA_DIR CHANNEL EVENTS BURST INTERVAL

Reads a byte for the start, and one for each event, as soon as the first subscriber has it. With an
INTERVAL of 0 it appends the next burst when the burst before has begun to arrive: then exactly one
waits in the log while the gateway writes the other, so that the gateway never rests, and no two
bursts share a batch. With an INTERVAL in seconds it keeps to the clock, whatever arrives.
"""

import asyncio
import sys
import time
from pathlib import Path
from typing import NamedTuple

import msgspec

from gateway.broker.broker import open_broker
from gateway.config import Config
from gateway.events import Publication
from gateway.policy import Policy, load_checked
from gateway.policy.publishing import Publisher

FIRST = 1_000_000
"""The id of the first event: `reader.c` counts from it."""
SIZE = 128
"""Bytes of an event, with its channel."""


class Plan(NamedTuple):
    """What is to be appended, and when."""

    channel: str
    events: int
    burst: int
    interval: float


def main() -> None:
    """Do what the command line says."""
    config, data_dir, channel, events, burst, interval = sys.argv[1:]
    plan = Plan(channel, int(events), int(burst), float(interval))
    checked, policy = load_checked(Path(config))
    broker = msgspec.structs.replace(checked.broker, url=None, data_dir=Path(data_dir))
    asyncio.run(_append_all(msgspec.structs.replace(checked, broker=broker), policy, plan))


async def _append_all(config: Config, policy: Policy, plan: Plan) -> None:
    publisher = Publisher(policy.feeds, policy.channels)
    echo = await _stdin()
    async with open_broker(config.broker) as broker:
        seen = len(await echo.readexactly(1)) - 1
        due = time.monotonic()
        for number in range(0, plan.events, plan.burst):
            await broker.events.append(
                [publication(publisher, plan.channel, number + i) for i in range(plan.burst)]
            )
            if plan.interval:
                due += plan.interval
                await asyncio.sleep(due - time.monotonic())
            while not plan.interval and seen <= number:
                seen += len(await echo.read(4096)) or plan.events  # at its end the reader is gone


async def _stdin() -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


def publication(publisher: Publisher, channel: str, number: int) -> Publication:
    """Return a CloudEvent of exactly `SIZE` bytes, with its number and the present moment in it."""
    start = b'{"specversion":"1.0","id":"%d","source":"/b","type":"t","data":{"ts":%d,"x":"' % (
        FIRST + number,
        time.monotonic_ns(),
    )
    end = b'"},"channel":"%b"}' % channel.encode()
    event = start + b"." * (SIZE - len(start) - len(end)) + end
    assert len(event) == SIZE
    return publisher.publication(channel, event)


if __name__ == "__main__":
    main()
