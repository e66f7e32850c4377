"""Workers that die between any two of their steps: either all of a command happened, or nothing."""

import asyncio
import itertools
import random
from collections import defaultdict
from functools import partial
from typing import Any

import pytest

from gateway import Command, Event, handles
from gateway.commands import Status
from tests.servers import Broker, eventually
from tests.worker.faults import Moment, Road
from tests.worker.process import Work
from tests.worker.processes import bury, die, post, runs, working
from tests.worker.stage import LEASE, STREAM, TYPE, Stage, check_log

pytestmark = [pytest.mark.anyio]

STEPS = [
    ("reclaim", Moment.AFTER),
    ("take", Moment.AFTER),
    ("start", Moment.AFTER),
    *itertools.product(["settle"], Moment),
]
"""What a worker asks of the broker on the way of a command, and when it dies of it."""


async def test_a_worker_that_dies_at_any_step_leaves_nothing_or_everything(
    stage: Stage, broker: Broker
) -> None:
    """Each of a chain of workers takes over from one that was killed, and is killed itself."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201  what a failure is repeated with
    chance = random.Random(seed)
    posted: dict[str, Any] = {}
    async with Road(broker.server.socket).open() as road:
        for number, (step, moment) in enumerate(chance.sample(STEPS, len(STEPS))):
            posted |= await post(stage, range(2 * number, 2 * number + 2), keys=12, seconds=0.01)
            async with working(broker, road.url, retries=99) as victim:
                road.arm(step, moment, partial(die, victim))
                await asyncio.wait_for(road.happened.wait(), 30)
            await bury(stage)
        async with working(broker, retries=99):
            await stage.drained(within=60)
    check_log(await stage.log(), posted)
    assert await stage.dead_letters() == []
    attempts: dict[str, list[int]] = defaultdict(list)
    for run in await runs(stage):
        attempts[run.command].append(run.attempt)
    assert attempts.keys() == posted.keys()
    repeated = [numbers for numbers in attempts.values() if len(numbers) > 1]
    assert repeated  # handlers ran again, and could know it by the number of the attempt
    assert all(numbers == sorted(set(numbers)) for numbers in attempts.values())


async def test_a_commit_that_arrives_after_the_lease_changed_hands_changes_nothing(
    stage: Stage, broker: Broker
) -> None:
    """A worker or a network was paused, and nobody could know that its commit was on its way."""
    done: list[str] = []

    def handler(name: str) -> Any:
        @handles(TYPE)
        async def handle(command: Command[list[Any]]) -> Event:
            done.append(name)
            key, number = command.data
            return Event("done", data={"key": key, "number": number})

        return handle

    thawed = asyncio.Event()
    async with Road(broker.server.socket).open() as road, road.clients() as clients:
        distant = Stage(stage.config, clients)
        late = asyncio.create_task((worker := distant.worker(handler("late"))).run())
        await stage.held(1)
        road.arm("settle", Moment.BEFORE, thawed.wait)
        posted = {await stage.post(["k", 1], key="k"): ("k", 1)}
        async with stage.working(handler("heir")):
            await stage.drained(within=10 * LEASE)
            before = await stage.log()
            thawed.set()
            await asyncio.wait_for(road.happened.wait(), 30)
            await stage.held(2)  # the late one has heard of it, and takes its share again
            assert done == ["late", "heir"]
            after = [e["type"] for e in (await stage.log())[len(before) :]]
            assert after == []
            posted[await stage.post(["k", 2], key="k")] = ("k", 2)
            await stage.drained()
        worker.stop()
        await late
    check_log(await stage.log(), posted)


async def test_a_commit_without_the_lease_changes_nothing_though_nobody_else_began(
    stage: Stage, broker: Broker
) -> None:
    ran: list[int] = []

    @handles(TYPE)
    async def handle(command: Command[list[Any]]) -> Event:
        ran.append(command.attempt)
        key, number = command.data
        return Event("done", data={"key": key, "number": number})

    async def steal() -> bool:
        for partition in range(stage.config.broker.partitions):
            await stage.redis.set(stage.keys.lease(STREAM, partition), "thief", px=500)
        return True

    async with Road(broker.server.socket).open() as road, road.clients() as clients:
        road.arm("settle", Moment.BEFORE, steal)
        id = await stage.post(["k", 1], key="k")
        async with Stage(stage.config, clients).working(handle):
            assert (await stage.outcome(id, within=30)).attempts == 2
    assert ran == [1, 2]
    assert await stage.life(id) == ["accepted", "started", "started", "succeeded"]
    check_log(await stage.log(), {id: ("k", 1)})


async def test_a_handler_that_blocks_its_process_takes_no_other_key_with_it(
    stage: Stage, broker: Broker
) -> None:
    """Its partitions go to others when its leases run out. It ends as one that kills workers."""
    async with working(broker), working(broker):
        await stage.held(2)
        poison = await stage.post(Work("poison", 0, blocks=2 * LEASE), key="poison")
        await eventually(lambda: runs(stage), within=30, reason="it ran")
        posted = await post(stage, range(3), keys=40, seconds=0.01)
        await stage.drained(within=60)
    log = await stage.log()
    check_log([event for event in log if event.get("subject") != poison], posted)
    (letter,) = await stage.dead_letters()
    assert (letter["id"], letter["reason"]) == (poison, "worker-died")
    status = await stage.outcome(poison)
    assert (status.status, status.attempts) == (Status.DEAD_LETTERED, 3)
