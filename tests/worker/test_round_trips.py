"""Steps that share a round trip: few of them on the way of a command, and no promise the less."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest

from gateway import Command, Event, handles
from gateway.broker.scripts import script
from gateway.broker.streams import Delivery
from gateway.commands import Status
from gateway.config import BrokerConfig, Config
from gateway.redrive import Redrive
from gateway.settings import Seconds
from gateway.worker.partitions import Job, Partition
from tests.servers import Broker, eventually
from tests.worker.faults import Moment, Road
from tests.worker.process import Work
from tests.worker.processes import bury, die, post, runs, working
from tests.worker.stage import STREAM, TYPE, Stage, check_log, config_of

pytestmark = [pytest.mark.anyio]

STEPS = {"take", "start", "settle"}


@handles(TYPE)
async def handle(command: Command[list[Any]]) -> Event:
    key, number = command.data
    return Event("done", data={"key": key, "number": number})


@asynccontextmanager
async def distant(
    broker: Broker, config: Config | None = None
) -> AsyncIterator[tuple[Stage, Road]]:
    """Give a stage whose workers take a road to the log."""
    async with Road(broker.server.socket).open() as road, road.clients() as clients:
        yield Stage(config or config_of(broker.config), clients), road


def unhurried(broker: Broker) -> Config:
    """Leases that are not renewed too late on a busy machine: a worker would look around then."""
    return config_of(broker.config, lease=Seconds(20))


def steps(road: Road, *wanted: str) -> list[list[str]]:
    """Return what workers asked for on the way of their commands, by round trips."""
    asked = ([name for name in names if name in (wanted or STEPS)] for names in road.asked)
    return [names for names in asked if names]


async def warm(stage: Stage) -> str:
    """Wait until a worker waits for commands; return the one that it was given."""
    await stage.held(1)
    await stage.outcome(id := await stage.post(["warm", 0]))
    return id


# How many they are


async def test_a_command_that_comes_alone_is_taken_by_its_first_attempt(
    stage: Stage, broker: Broker
) -> None:
    async with distant(broker, unhurried(broker)) as (far, road), far.working(handle):
        await warm(stage)
        road.asked.clear()
        await stage.outcome(await stage.post(["k", 1], key="k"))
        assert steps(road) == [["start"], ["settle"]]


async def test_the_next_of_a_key_begins_with_the_settling_of_the_one_before(
    stage: Stage, broker: Broker
) -> None:
    posted = {await stage.post(["k", number], key="k"): ("k", number) for number in range(10)}
    async with distant(broker) as (far, road), far.working(handle):
        await stage.drained()
        assert steps(road, "start", "settle") == [
            ["start"],
            *[["settle", "start"]] * 9,
            ["settle"],
        ]
    check_log(await stage.log(), posted)


# Workers that die in between


@pytest.mark.parametrize("moment", Moment)
async def test_a_worker_that_dies_while_it_takes_and_begins_leaves_both_or_none(
    stage: Stage, broker: Broker, moment: Moment
) -> None:
    async with Road(broker.server.socket).open() as road:
        async with working(broker, road.url) as victim:
            await eventually(lambda: holds(stage), within=30, reason="the worker was there")
            posted = await post(stage, range(1), keys=1, seconds=0)
            await stage.drained()
            road.arm("start", moment, partial(die, victim))
            late = await post(stage, range(1, 2), keys=1, seconds=0)
            await asyncio.wait_for(road.happened.wait(), 30)
        await bury(stage)
        async with working(broker):
            await stage.drained()
    check_log(await stage.log(), posted | late)
    (id,) = late
    begun = moment is Moment.AFTER  # and it is counted, though its handler never ran
    assert (await stage.outcome(id)).attempts == (2 if begun else 1)
    assert [run.attempt for run in await runs(stage) if run.command == id] == [2 if begun else 1]


async def holds(stage: Stage) -> bool:
    return bool(await stage.holders())


@pytest.mark.parametrize("moment", Moment)
async def test_a_worker_that_dies_between_two_of_a_key_loses_and_repeats_nothing(
    stage: Stage, broker: Broker, moment: Moment
) -> None:
    posted = await post(stage, range(6), keys=1, seconds=0)
    async with Road(broker.server.socket).open() as road:
        async with working(broker, road.url) as victim:
            road.arm("settle", moment, partial(die, victim))
            await asyncio.wait_for(road.happened.wait(), 30)
        assert steps(road)[-1] == ["settle", "start"]
        await bury(stage)
        async with working(broker):
            await stage.drained()
    check_log(await stage.log(), posted)
    attempts = [(await stage.outcome(id)).attempts for id in posted]
    first = 1 if moment is Moment.AFTER else 2
    second = 2 if moment is Moment.AFTER else 1
    if moment is Moment.TORN:  # the first half may hold the whole of the settling
        assert attempts in ([1, 1, 1, 1, 1, 1], [2, 1, 1, 1, 1, 1])
    else:
        assert attempts == [first, second, 1, 1, 1, 1]


# Leases that are lost in between


async def test_what_begins_with_a_commit_that_is_refused_is_refused_as_well(
    stage: Stage, broker: Broker
) -> None:
    ran: list[tuple[int, int]] = []

    @handles(TYPE)
    async def watch(command: Command[list[Any]]) -> Event:
        ran.append((command.data[1], command.attempt))
        return Event("done", data={"key": "k", "number": command.data[1]})

    posted = {await stage.post(["k", number], key="k"): ("k", number) for number in range(3)}
    async with distant(broker) as (far, road):
        road.arm("settle", Moment.BEFORE, partial(steal, stage))
        async with far.working(watch):
            await stage.drained()
    assert ran == [(0, 1), (0, 2), (1, 1), (2, 1)]
    check_log(await stage.log(), posted)


async def test_a_command_is_neither_taken_nor_begun_without_the_lease(
    stage: Stage, broker: Broker
) -> None:
    async with distant(broker) as (far, road), far.working(handle):
        await warm(stage)
        road.arm("start", Moment.BEFORE, partial(steal, stage))
        id = await stage.post(["k", 1], key="k")
        assert (await stage.outcome(id, within=30)).attempts == 1
        assert road.happened.is_set()
    assert await stage.life(id) == ["accepted", "started", "succeeded"]


async def steal(stage: Stage) -> bool:
    for partition in range(stage.config.broker.partitions):
        await stage.redis.set(stage.keys.lease(STREAM, partition), "thief", px=500)
    return True


# Answers that are lost


@pytest.mark.parametrize("moment", [Moment.TORN, Moment.AFTER])
@pytest.mark.parametrize("step", ["start", "settle"])
async def test_what_is_asked_again_happens_once(
    stage: Stage, broker: Broker, step: str, moment: Moment
) -> None:
    posted: dict[str, Any] = {}
    async with distant(broker, unhurried(broker)) as (far, road):

        async def cut() -> bool:
            road.cut()
            return False

        async with far.working(handle):
            posted[await warm(stage)] = ("warm", 0)
            for number in range(5):
                road.arm(step, moment, cut)
                alone = await stage.post(["alone", number], key="alone")
                await stage.outcome(alone)
                assert road.happened.is_set()
                posted[alone] = ("alone", number)
            gate = [await stage.post(["k", number], key="k") for number in range(5)]
            road.arm(step, moment, cut)
            await stage.outcomes(gate)
            posted |= {id: ("k", number) for number, id in enumerate(gate)}
    for id in posted:
        assert (await stage.outcome(id)).attempts == 1
        assert await stage.life(id) == ["accepted", "started", "succeeded"]
    check_log(await stage.log(), posted)


async def test_a_server_that_knows_only_half_of_the_scripts_changes_no_order(
    stage: Stage,
) -> None:
    """Then the second of two calls runs before the first."""

    @handles(TYPE)
    async def forget(command: Command[list[Any]]) -> Event:
        await stage.redis.script_flush()
        await stage.redis.script_load(script("start").source)
        return Event("done", data={"key": "k", "number": command.data[1]})

    posted = {await stage.post(["k", number], key="k"): ("k", number) for number in range(10)}
    async with stage.working(forget):
        await stage.drained()
    check_log(await stage.log(), posted)
    assert {(await stage.outcome(id)).attempts for id in posted} == {1}


# Retries, dead letters and those that are gone


async def test_a_command_that_comes_alone_is_retried_given_up_on_and_redriven(
    stage: Stage, broker: Broker
) -> None:
    ran: list[int] = []

    @handles(TYPE, retries=1, backoff=0)
    async def fail(command: Command[Any]) -> None:
        ran.append(command.attempt)
        if command.attempt < 4:
            raise ValueError

    async with distant(broker, unhurried(broker)) as (far, road), far.working(fail):
        await stage.held(1)
        id = await stage.post(["k", 1], key="k")
        assert (await stage.outcome(id)).status is Status.DEAD_LETTERED
        road.asked.clear()
        await redrive(stage)(id)

        async def succeeded() -> bool:
            status = await stage.status(id)
            return status is not None and status.status is Status.SUCCEEDED

        await eventually(succeeded, within=30, reason="it succeeded")
        assert steps(road, "take") == []
    assert ran == [1, 2, 3, 4]
    assert await stage.dead_letters() == []


def redrive(stage: Stage) -> Redrive:
    return Redrive(stage.broker.dead_letters, stage.policy)


async def test_a_poison_command_takes_no_attempt_of_the_one_behind_it(
    stage: Stage, broker: Broker
) -> None:
    poison = await stage.post(Work("k", 0, kills=2), key="k")
    behind = await stage.post(Work("k", 1), key="k")
    for _ in range(2):
        async with working(broker) as victim:
            await asyncio.wait_for(victim.wait(), 30)
        await bury(stage)
    async with working(broker):
        await stage.drained()
    assert (await stage.outcome(poison)).attempts == 3
    assert (await stage.outcome(behind)).attempts == 1
    check_log(await stage.log(), {poison: ("k", 0), behind: ("k", 1)})


async def test_a_command_that_is_gone_keeps_no_other_from_being_done(
    broker: Broker,
) -> None:
    """Another one is taken in its place, and found by whoever has to look for it."""
    config = BrokerConfig(url=broker.config.url, namespace=broker.config.namespace, partitions=1)
    stage = Stage(config_of(config), broker.clients)
    others: list[str] = []

    async def replace() -> bool:
        partition = stage.keys.commands(STREAM, 0)
        ((entry, _),) = await stage.entries(partition)
        others.extend([await stage.post(["k", number], key="k") for number in (2, 3)])
        await stage.redis.xdel(partition, entry)
        return True

    async with distant(broker, stage.config) as (far, road), far.working(handle):
        await warm(stage)
        road.arm("start", Moment.BEFORE, replace)
        gone = await stage.post(["k", 1], key="k")
        await asyncio.wait_for(road.happened.wait(), 30)
        await stage.outcomes(others)
        assert await stage.life(gone) == ["accepted"]
        assert await stage.life(others[0]) == ["accepted", "started", "succeeded"]
    assert [each["number"] for each in await stage.done()] == [0, 2, 3]


# Who waits


async def test_a_worker_that_stops_ends_what_it_has_begun_and_begins_no_more(
    stage: Stage, broker: Broker
) -> None:
    ids = [await stage.post(["k", number], key="k") for number in range(3)]
    async with distant(broker) as (far, road):
        worker = far.worker(handle)

        async def stop() -> bool:
            worker.stop()
            return True

        road.arm("settle", Moment.BEFORE, stop)
        await worker.run()
        found = [await stage.status(id) for id in ids]
    assert [status and (status.status, status.attempts) for status in found] == [
        (Status.SUCCEEDED, 1),
        (Status.SUCCEEDED, 1),
        (Status.ACCEPTED, 0),
    ]


async def test_one_that_stepped_aside_does_not_come_between_two_that_share_a_round_trip() -> None:
    partition = Partition((STREAM, 0), expires=0.0)
    aside, runs, begun = jobs = [
        Job(Delivery(STREAM, 0, b"%d-0" % number, b'{"specversion":"1.0","id":"%d","type":"do",'
            b'"source":"/","time":"","partitionkey":"k"}' % number))
        for number in range(3)
    ]  # fmt: skip
    assert [partition.add(job) for job in jobs] == [True, False, False]
    risen = asyncio.Event()
    following = partition.rest(aside, 0, keeps_order=False, wake=lambda _: risen.set())
    assert following is runs
    assert partition.next_begins(runs) is begun
    await eventually(lambda: not partition._resting, within=30, reason="it came back")
    assert not risen.is_set()  # others of its key are there
    assert partition.finish(runs) is begun
    assert partition.finish(begun) is aside
