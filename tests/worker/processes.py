"""Workers in processes of their own, and what their handlers wrote down."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from tests.servers import Broker
from tests.worker.process import TRACE, Run, Work
from tests.worker.stage import STREAM, Stage

ROOT = Path(__file__).parents[2]

Process = asyncio.subprocess.Process


@asynccontextmanager
async def working(
    broker: Broker, url: str | None = None, *, retries: int = 2
) -> AsyncIterator[Process]:
    """Run a worker in a process of its own; `url` is another way to the broker."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.worker.process"),
        *(url or broker.server.url, broker.config.namespace, str(retries)),
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def runs(stage: Stage) -> list[Run]:
    """Return all runs of handlers, in the order in which they began."""
    asked: Any = stage.redis.lrange(TRACE, 0, -1)
    return [msgspec.json.decode(each, type=Run) for each in await asked]


async def holders(stage: Stage) -> set[int]:
    """Return the ids of the processes that hold partitions."""
    return {int(token.split("-")[-2]) for token in await stage.holders()}


async def post(stage: Stage, numbers: range, *, keys: int, seconds: float) -> dict[str, Any]:
    """Post a command of each number for each key, and return which is which."""
    posted = {}
    for number in numbers:
        for key in (f"k{n}" for n in range(keys)):
            work = Work(key, number, seconds)
            posted[await stage.post(work, key=key)] = (key, number)
    return posted


async def die(victim: Process) -> None:
    victim.kill()
    await victim.wait()


async def bury(stage: Stage) -> None:
    """Do at once what time does: a dead worker's leases expire."""
    partitions = range(stage.config.broker.partitions)
    await stage.redis.delete(*(stage.keys.lease(STREAM, each) for each in partitions))
    await stage.redis.delete(stage.keys.workers(STREAM))
