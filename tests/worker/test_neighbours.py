"""Commands that fail, hang or kill hold back nobody but those of their own key."""

import asyncio
import time
from typing import Any

import msgspec
import pytest

from gateway import Command, Event, handles
from gateway.broker.streams import partition_of
from gateway.commands import Status
from gateway.settings import Seconds
from gateway.worker import consumer
from gateway.worker.partitions import OVERHEAD
from tests.servers import Broker, eventually
from tests.worker.stage import LEASE, STREAM, TYPE, Stage, config_of, empty

pytestmark = pytest.mark.anyio


class Failing(Exception):
    pass


@pytest.fixture
def narrow(broker: Broker) -> Stage:
    """A stage on which every command is in the same partition, and few can run at a time."""
    config = msgspec.structs.replace(broker.config, partitions=1)
    return Stage(config_of(config, concurrency=4), broker.clients)


async def test_a_key_with_many_commands_behind_a_failing_one_holds_back_no_other(
    narrow: Stage, longest_delays: None
) -> None:
    """More of them than are read ahead: the partition must be read on."""

    @handles(TYPE, backoff=600, max_backoff=600)
    async def handle(command: Command[str]) -> Event:
        if command.data == "poison":
            raise Failing
        return Event("done", data=command.data)

    await narrow.post("poison", key="k")
    for _ in range(50):
        await narrow.post("behind it", key="k")
    others = [await narrow.post("other", key=f"o{n}") for n in range(50)]
    async with narrow.working(handle):
        await narrow.outcomes(others)
        late = await narrow.post("other")
        await narrow.outcomes([late])
    assert await narrow.done() == ["other"] * 51
    assert await narrow.backlog() == 51


async def test_a_key_whose_handler_hangs_holds_back_no_other(narrow: Stage) -> None:
    """It takes one slot, whatever is behind it."""
    hanging = asyncio.Event()

    @handles(TYPE, timeout=None)
    async def handle(command: Command[str]) -> Event:
        if command.data == "poison":
            await hanging.wait()
        return Event("done", data=command.data)

    ids = [await narrow.post("poison", key="k")]
    ids += [await narrow.post("behind it", key="k") for _ in range(50)]
    others = [await narrow.post("other", key=f"o{n % 7}") for n in range(50)]
    async with narrow.working(handle):
        await narrow.outcomes(others)
        assert await narrow.done() == ["other"] * 50
        hanging.set()
        await narrow.outcomes(ids)
    assert (await narrow.done())[50:] == ["poison"] + ["behind it"] * 50


@pytest.mark.parametrize("keyed", [True, False], ids=["keys", "no keys"])
async def test_any_number_of_failing_commands_hold_back_no_other(
    narrow: Stage, longest_delays: None, keyed: bool
) -> None:
    """What waits for its next attempt takes no slot and no place among those that are read."""

    @handles(TYPE, backoff=600, max_backoff=600, keep_order=False)
    async def handle(command: Command[str]) -> Event:
        if command.data == "poison":
            raise Failing
        return Event("done", data=command.data)

    for number in range(100):
        await narrow.post("poison", key=f"k{number}" if keyed else None)
    others = [await narrow.post("other", key=f"k{n}" if keyed else None) for n in range(100)]
    async with narrow.working(handle) as worker:
        await narrow.outcomes(others)
        (partition,) = worker._holdings.held.values()
        assert (partition.size, len(partition.tasks)) == (100, 0)
        before = time.monotonic()
    assert time.monotonic() - before < LEASE  # nothing keeps the worker from stopping
    assert await narrow.backlog() == 100


async def test_a_suspect_that_hangs_does_not_keep_the_others_waiting(
    narrow: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.worker.quarantine.WATCHED", 0.3)
    hanging, running = asyncio.Event(), set[str]()

    @handles(TYPE, timeout=None, retries=9)
    async def handle(command: Command[str]) -> None:
        running.add(command.data)
        if command.data != "innocent":
            await hanging.wait()

    hung = [await narrow.post(name, key=name) for name in ("one", "two")]
    innocent = await narrow.post("innocent", key="innocent")
    await take_and_die(narrow, [*hung, innocent], attempts=2)
    async with narrow.working(handle):
        await eventually(lambda: running, within=30, reason="a suspect ran")
        assert running == {"one"}
        await narrow.outcomes([innocent])
        hanging.set()
        await narrow.outcomes(hung)


async def take_and_die(stage: Stage, ids: list[str], *, attempts: int) -> None:
    """Leave commands as a worker does that died while it handled them, and so did others before."""
    await stage.broker.commands.open([STREAM])
    leases = stage.broker.leases("ghost", ttl=LEASE)
    await leases.acquire([(STREAM, 0)], count=1)
    taken = await stage.broker.commands.take({(STREAM, 0): len(ids)}, "ghost")
    assert len(taken.deliveries) == len(ids)
    await leases.release([(STREAM, 0)])
    for id in ids:
        status: Any = {"status": "started", "attempts": attempts, "run": "ghost-1"}
        await stage.redis.hset(stage.keys.status(id), mapping=status)


async def test_an_attempt_that_died_with_its_worker_is_among_those_that_failed(
    narrow: Stage,
) -> None:
    @handles(TYPE, retries=1)
    async def handle(command: Command[str]) -> None:
        raise AssertionError("it must not run")

    id = await narrow.post()
    await take_and_die(narrow, [id], attempts=2)
    async with narrow.working(handle):
        assert (await narrow.outcome(id)).attempts == 2
    (letter,) = await narrow.dead_letters()
    assert (letter["reason"], letter["attempts"]) == ("worker-died", 2)
    (failure,) = letter["failures"]
    assert (failure["attempt"], failure["type"]) == (2, "WorkerDied")
    assert failure["message"] == "it was begun and never settled: ghost-1"


async def test_what_waits_is_put_away_when_there_is_much_and_is_read_again(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, longest_delays: None
) -> None:
    monkeypatch.setattr(consumer, "MAX_BYTES", 400_000)
    monkeypatch.setattr(consumer, "PARK", 200_000)
    stage = Stage(config_of(broker.config, concurrency=2, lease=Seconds(30)), broker.clients)
    go_on = asyncio.Event()
    held: list[int] = []

    @handles(TYPE, backoff=0.2, keep_order=False)
    async def handle(command: Command[dict[str, Any]]) -> Event:
        held.append(sum(each.bytes for each in worker._holdings.held.values()))
        if command.data["n"] == 0:
            await go_on.wait()
        if command.data["n"] % 3 == 0 and command.attempt == 1:
            raise Failing
        assert len(command.data["bulk"]) == 20_000
        return Event("done", data=command.data["n"])

    bulk = "x" * 20_000
    ids = [await stage.post({"n": n, "bulk": bulk}, key="k") for n in range(60)]
    others = [key for n in range(100) if partition_of(key := f"o{n}", 16) == partition_of("k", 16)]
    other = await stage.post({"n": 100, "bulk": bulk}, key=others[0])
    async with stage.working(handle) as worker:
        await stage.outcomes([other])  # though the 60 before it are more than may be held
        go_on.set()
        await stage.outcomes(ids)
        await empty(worker)
    numbers = (await stage.done())[1:]
    assert sorted(numbers) == list(range(60))
    assert [n for n in numbers if n % 3] == [n for n in range(60) if n % 3]
    assert max(held) < 400_000 + 4 * (20_000 + OVERHEAD)


async def test_a_handler_that_cancels_its_own_task_fails_alone(stage: Stage) -> None:
    @handles(TYPE, retries=0)
    async def handle(command: Command[Any]) -> None:
        if command.data == "bad":
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(0)

    async with stage.working(handle):
        bad = await stage.post("bad", key="k")
        good = await stage.post("good", key="k")
        assert (await stage.outcome(bad)).status is Status.DEAD_LETTERED
        assert (await stage.outcome(good)).status is Status.SUCCEEDED


async def test_a_keyboard_interrupt_of_a_handler_ends_its_attempt_alone(stage: Stage) -> None:
    @handles(TYPE, retries=0)
    async def handle(command: Command[Any]) -> None:
        raise KeyboardInterrupt

    async with stage.working(handle):
        id = await stage.post(key="k")
        assert (await stage.outcome(id)).status is Status.DEAD_LETTERED
