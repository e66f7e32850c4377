"""Partitions go to the workers in fair shares, and change hands without loss or disorder."""

import asyncio
import random
from contextlib import AsyncExitStack
from typing import Any

import pytest

from gateway import Command, Event, Rejected, handles
from gateway.commands import Status
from gateway.settings import Seconds
from tests.servers import Broker, eventually
from tests.worker.stage import LEASE, STREAM, TYPE, Stage, check_log, config_of

pytestmark = pytest.mark.anyio


@handles(TYPE)
async def nothing(command: Command[Any]) -> None: ...


async def test_workers_share_the_partitions_evenly_and_take_over_from_each_other(
    any_stage: Stage,
) -> None:
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(any_stage.working(nothing))
        assert list((await any_stage.held(1)).values()) == [16]
        await stack.enter_async_context(any_stage.working(nothing))
        assert sorted((await any_stage.held(2)).values()) == [8, 8]
        async with any_stage.working(nothing):
            assert max((await any_stage.held(3)).values()) == 6
        await any_stage.held(2)
    assert await any_stage.holders() == {}
    assert await any_stage.redis.zcard(any_stage.keys.workers(STREAM)) == 0


async def test_a_worker_that_stops_hands_over_at_once(broker: Broker) -> None:
    stage = Stage(config_of(broker.config, lease=Seconds(30)), broker.clients)
    async with stage.working(nothing):
        async with stage.working(nothing):
            await stage.held(2)
        await eventually(
            lambda: held_by_one(stage), within=5, reason="the other took all, long before 30 s"
        )


async def held_by_one(stage: Stage) -> bool:
    return list((await stage.holders()).values()) == [stage.config.broker.partitions]


async def test_commands_keep_the_order_of_their_keys_through_failures_and_hand_overs(
    stage: Stage,
) -> None:
    running: set[str] = set()
    together: list[str] = []
    chance = random.Random(7)

    @handles(TYPE, retries=100, backoff=0.02, max_backoff=0.05)
    async def handle(command: Command[list[Any]]) -> Event:
        key, number = command.data
        together.extend(running & {key})
        running.add(key)
        try:
            await asyncio.sleep(chance.uniform(0, 0.01))
            if chance.random() < 0.3:
                raise ValueError("by chance")
            return Event("done", data={"key": key, "number": number})
        finally:
            running.discard(key)

    async def churn() -> None:
        while True:
            async with stage.working(handle):
                await asyncio.sleep(chance.uniform(0.2, 1.2))

    posted = {}
    async with stage.working(handle):
        churning = asyncio.create_task(churn())
        for number in range(50):
            for key in [f"k{n}" for n in range(40)]:
                posted[await stage.post([key, number], key=key)] = (key, number)
        await stage.drained(within=45)
        churning.cancel()
        await asyncio.gather(churning, return_exceptions=True)
    check_log(await stage.log(), posted)
    assert together == []


async def test_a_graceful_stop_lets_handlers_end_and_leaves_the_rest_to_others(
    stage: Stage,
) -> None:
    begun: list[int] = []
    go_on = asyncio.Event()

    @handles(TYPE)
    async def handle(command: Command[int]) -> None:
        begun.append(command.data)
        await go_on.wait()

    first, second = await stage.post(1, key="k"), await stage.post(2, key="k")
    worker = stage.worker(handle)
    running = asyncio.create_task(worker.run())
    await eventually(lambda: begun, reason="the first command ran")
    worker.stop()
    late = await stage.post(3)
    await asyncio.sleep(0.3)  # long enough to begin something that must not be begun
    go_on.set()
    await running
    assert begun == [1]
    assert (await stage.outcome(first)).status is Status.SUCCEEDED
    assert await stage.holders() == {}
    async with stage.working(handle):
        for id in (second, late):
            assert (await stage.outcome(id)).attempts == 1


async def test_handlers_that_outlast_the_shutdown_are_cancelled_and_done_by_others(
    broker: Broker,
) -> None:
    stage = Stage(config_of(broker.config, shutdown=Seconds(0.2)), broker.clients)
    cancelled = []

    @handles(TYPE, retries=0)  # an attempt that was cut short does not count
    async def handle(command: Command[Any]) -> None:
        if command.attempt > 1:
            return
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(command.id)
            raise

    id = await stage.post()
    worker = stage.worker(handle)
    running = asyncio.create_task(worker.run())
    await eventually(lambda: stage_started(stage, id), reason="the handler ran")
    worker.stop()
    await running
    assert cancelled == [id]
    async with stage.working(handle):
        status = await stage.outcome(id)
    assert (status.status, status.attempts) == (Status.SUCCEEDED, 2)


async def stage_started(stage: Stage, id: str) -> bool:
    status = await stage.status(id)
    return status is not None and status.status is Status.STARTED


async def test_a_handler_that_resists_its_cancellation_does_not_keep_the_worker(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.worker.consumer.GRACE", 0.2)
    stage = Stage(config_of(broker.config, shutdown=Seconds(0.1)), broker.clients)
    go_on, stubborn = asyncio.Event(), asyncio.Event()

    @handles(TYPE)
    async def handle(command: Command[Any]) -> Event:
        while not go_on.is_set():
            try:
                await go_on.wait()
            except asyncio.CancelledError:
                stubborn.set()
        return Event("done")

    id = await stage.post()
    worker = stage.worker(handle)
    running = asyncio.create_task(worker.run())
    await eventually(lambda: stage_started(stage, id), reason="the handler ran")
    worker.stop()
    await running
    assert stubborn.is_set()
    go_on.set()  # what it commits now comes too late: the lease is handed back
    await asyncio.sleep(0.1)
    assert [event for event in await stage.log() if event["type"] == "done"] == []
    async with stage.working(handle):
        await stage.outcome(id)
    assert len([event for event in await stage.log() if event["type"] == "done"]) == 1


async def test_a_worker_that_is_cancelled_hands_its_partitions_back(stage: Stage) -> None:
    running = asyncio.create_task(stage.worker(nothing).run())
    await stage.held(1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await stage.holders() == {}


async def test_a_worker_that_loses_a_lease_cancels_its_handlers_and_goes_on(stage: Stage) -> None:
    cancelled = []

    @handles(TYPE)
    async def handle(command: Command[Any]) -> Event:
        if command.attempt == 1:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(command.id)
                raise
        return Event("done")

    id = await stage.post()
    async with stage.working(handle):
        await eventually(lambda: stage_started(stage, id), reason="the handler ran")
        for partition in range(stage.config.broker.partitions):
            await stage.redis.set(stage.keys.lease(STREAM, partition), "thief", px=1000)
        assert (await stage.outcome(id)).attempts == 2
    assert cancelled == [id]


async def test_a_delay_before_a_retry_outlives_the_worker(stage: Stage) -> None:
    @handles(TYPE, backoff=1, max_backoff=1)
    async def handle(command: Command[Any]) -> None:
        if command.attempt == 1:
            raise Failing

    id = await stage.post()
    worker = stage.worker(handle)
    running = asyncio.create_task(worker.run())

    async def told() -> Any:
        retrying = [e for e in await stage.log() if e["type"] == "command.retrying"]
        return float(retrying[0]["data"]["retry_in_ms"]) if retrying else None

    delay_ms = await eventually(told, reason="the first attempt failed")
    worker.stop()
    await running
    async with stage.working(handle):
        await stage.outcome(id)
    entries = await stage.entries(stage.keys.events)
    failed, started = (
        [int(id.split(b"-")[0]) for id, fields in entries if told_of in fields[b"e"]][-1]
        for told_of in (b'"type":"command.retrying"', b'"type":"command.started"')
    )
    assert started - failed >= delay_ms - 2


class Failing(Exception):
    pass


async def test_rejections_and_retries_leave_no_lane_behind(stage: Stage) -> None:
    @handles(TYPE, backoff=0)
    async def handle(command: Command[int]) -> None:
        if command.data % 3 == 0:
            raise Rejected("no")
        if command.data % 3 == 1 and command.attempt == 1:
            raise Failing

    async with stage.working(handle) as worker:
        for number in range(60):
            await stage.post(number, key=f"k{number % 5}")
        await stage.drained()
        partitions = worker._holdings.held.values()
        await eventually(
            lambda: all(each.size == each.bytes == 0 and each.idle for each in partitions),
            within=LEASE,
            reason="nothing was left in the worker's hands",
        )
