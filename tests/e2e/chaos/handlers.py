"""The handlers of the runs with faults. Each run is written down before it does anything else."""

import asyncio
import os
import time

import msgspec

from gateway import Command, Event, Rejected, handles
from tests.e2e.chaos.history import Run, Task

RUNS = os.open(os.environ["CHAOS_RUNS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
"""A line for each run. What is appended in one write stays in one piece."""


@handles("work", retries=50, backoff=0.05, max_backoff=0.2)
async def work(command: Command[Task]) -> Event:
    """Tell that a task is done; or fail, at first or for good."""
    task = command.data
    _write_down(command)
    await asyncio.sleep(task.seconds)
    if task.kind == "reject":
        raise Rejected("it is of the kind that is rejected")
    if task.kind == "flaky" and command.attempt == 1:
        raise RuntimeError("it is of the kind that fails at first")
    return Event("work.done", subject=command.id, data={"number": task.number, "key": task.key})


@handles("poison", retries=1, backoff=0.05)
async def poison(command: Command[Task]) -> None:
    """Fail always."""
    _write_down(command)
    raise RuntimeError("it is of the kind that always fails")


def _write_down(command: Command[Task]) -> None:
    run = Run(
        pid=os.getpid(),
        command=command.id,
        attempt=command.attempt,
        number=command.data.number,
        at=time.monotonic(),
    )
    os.write(RUNS, msgspec.json.encode(run) + b"\n")
