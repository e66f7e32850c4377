"""A worker as a process of its own, for tests that kill or pause it: `URL NAMESPACE RETRIES`.

Its handler writes down each run in the list `trace` before it does what the command says.
"""

import asyncio
import os
import signal
import sys
import time
from typing import Any

import msgspec

from gateway import Command, Event, handles
from gateway.broker.client import connect
from gateway.config import BrokerConfig
from gateway.worker.loading import handlers_of
from tests.worker.stage import TYPE, Stage, config_of

TRACE = "trace"


class Work(msgspec.Struct):
    """What the handler is to do."""

    key: str
    number: int
    seconds: float = 0.0
    kills: int = 0
    """How many of its attempts kill their worker."""
    blocks: float = 0.0
    """Seconds for which it keeps the event loop from doing anything else."""


class Run(msgspec.Struct):
    """One run of the handler, as it is written down."""

    pid: int
    command: str
    attempt: int


async def main(url: str, namespace: str, retries: str) -> None:
    config = config_of(BrokerConfig(url=url, namespace=namespace))
    clients = await connect(config.broker)
    stage = Stage(config, clients)

    @handles(TYPE, retries=int(retries), backoff=0.05)
    async def handle(command: Command[Work]) -> Event:
        run = Run(os.getpid(), command.id, command.attempt)
        pushed: Any = clients.commands.rpush(TRACE, msgspec.json.encode(run))
        await pushed
        if command.attempt <= command.data.kills:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(command.data.blocks)  # noqa: ASYNC251  that is what it is for
        await asyncio.sleep(command.data.seconds)
        return Event("done", data={"key": command.data.key, "number": command.data.number})

    worker = stage.worker(handlers=handlers_of(handle))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.stop)
    await worker.run()
    await clients.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
