"""Workers that are killed, paused or killed by what they handle: nothing is lost, nothing twice."""

import asyncio
import signal

import pytest

from gateway.commands import Status
from tests.servers import Broker, eventually
from tests.worker.process import Work
from tests.worker.processes import Process, holders, post, runs, working
from tests.worker.stage import LEASE, Stage, check_log

pytestmark = [pytest.mark.anyio]


async def test_a_worker_that_is_killed_loses_nothing_and_repeats_nothing(
    stage: Stage, broker: Broker
) -> None:
    async with working(broker) as victim, working(broker):
        await stage.held(2)
        posted = await post(stage, range(15), keys=30, seconds=0.1)
        await eventually(lambda: caught(stage, victim), reason="the victim was busy")
        victim.kill()
        await victim.wait()
        posted |= await post(stage, range(15, 20), keys=30, seconds=0.02)
        async with working(broker):
            await stage.drained(within=60)
    check_log(await stage.log(), posted)
    assert await stage.dead_letters() == []
    assert victim.pid in {run.pid for run in await runs(stage) if run.attempt == 1}
    assert len(await runs(stage)) > len(posted)  # something was under way when it died


async def caught(stage: Stage, victim: Process) -> bool:
    """Stop a worker if it did much already and is in the middle of something."""
    victim.send_signal(signal.SIGSTOP)
    ran = {run.command for run in await runs(stage) if run.pid == victim.pid}
    done = {event["causationid"] for event in await stage.log() if event["type"] == "done"}
    if len(ran) > 40 and ran - done:
        return True
    victim.send_signal(signal.SIGCONT)
    return False


async def test_a_worker_that_was_paused_beyond_its_lease_can_commit_nothing(
    stage: Stage, broker: Broker
) -> None:
    async with working(broker) as paused:
        await stage.held(1)
        posted = await post(stage, range(8), keys=40, seconds=0.1)

        async def busy() -> bool:
            return len(await runs(stage)) > 80

        await eventually(busy, reason="the worker was busy, with more in its hands")
        paused.send_signal(signal.SIGSTOP)
        backlog = await stage.backlog()
        async with working(broker) as successor:
            await eventually(
                lambda: only(stage, successor), within=10 * LEASE, reason="the lease ran out"
            )
            posted |= await post(stage, range(8, 12), keys=40, seconds=0.01)
            await stage.drained(within=60)
            before = [run for run in await runs(stage) if run.pid == paused.pid]
            assert backlog > 0
            paused.send_signal(signal.SIGCONT)
            await stage.held(2)
            after = [run for run in await runs(stage) if run.pid == paused.pid]
            check_log(await stage.log(), posted)
            assert after == before
            posted |= await post(stage, range(12, 14), keys=40, seconds=0.0)
            await stage.drained()
            assert {run.pid for run in (await runs(stage))[-60:]} == {paused.pid, successor.pid}
    check_log(await stage.log(), posted)


async def only(stage: Stage, process: Process) -> bool:
    held = await stage.holders()
    return await holders(stage) == {process.pid} and held.total() == 16


async def test_a_command_that_kills_its_workers_takes_no_other_with_it(
    stage: Stage, broker: Broker
) -> None:
    innocent = await post(stage, range(1), keys=12, seconds=0.3)
    poison = await stage.post(Work("poison", 0, kills=99), key="poison")
    deaths = 0
    for _ in range(8):
        async with working(broker) as process:
            ended = asyncio.create_task(process.wait())
            drained = asyncio.create_task(stage.drained(within=60))
            await asyncio.wait([ended, drained], return_when=asyncio.FIRST_COMPLETED)
            drained.cancel()
            ended.cancel()
            await asyncio.gather(ended, drained, return_exceptions=True)
            deaths += process.returncode is not None
        if await stage.backlog() == 0:
            break
    status = await stage.outcome(poison)
    assert (status.status, status.attempts) == (Status.DEAD_LETTERED, 3)
    (letter,) = await stage.dead_letters()
    assert (letter["id"], letter["reason"]) == (poison, "worker-died")
    failures = [(each["attempt"], each["type"]) for each in letter["failures"]]
    assert failures == [(1, "WorkerDied"), (2, "WorkerDied"), (3, "WorkerDied")]
    assert deaths == len([run for run in await runs(stage) if run.command == poison]) == 3
    check_log(
        [event for event in await stage.log() if event.get("subject") != poison],
        innocent,
    )


async def test_a_worker_that_is_told_to_stop_ends_with_success(
    stage: Stage, broker: Broker
) -> None:
    async with working(broker) as process:
        await stage.held(1)
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 30) == 0
    assert await stage.holders() == {}
