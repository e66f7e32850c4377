"""Failing commands: which are tried again, and whether those of their key wait meanwhile."""

import asyncio
import random
from collections import defaultdict
from typing import Any

import pytest

from gateway import Command, Event, Rejected, handles
from gateway.commands import Status
from tests.servers import eventually
from tests.worker.stage import TYPE, Stage, empty

pytestmark = pytest.mark.anyio


class Failing(Exception):
    pass


class Worse(Failing):
    pass


# What is tried again


@pytest.mark.parametrize("error", [Failing, Worse])
async def test_what_must_not_be_retried_is_a_dead_letter_at_once(
    stage: Stage, error: type[Exception]
) -> None:
    seen = []

    @handles(TYPE, backoff=0, never_retry=(Failing, KeyError))
    async def handle(command: Command[Any]) -> None:
        seen.append(command.attempt)
        raise error("no way") if command.attempt == 2 else ValueError("try again")

    id = await stage.post()
    async with stage.working(handle):
        status = await stage.outcome(id)
    assert (status.status, seen) == (Status.DEAD_LETTERED, [1, 2])
    (letter,) = await stage.dead_letters()
    assert (letter["reason"], letter["error"]["type"]) == ("never-retried", error.__name__)
    assert [each["message"] for each in letter["failures"]] == ["try again", "no way"]


async def test_a_timeout_can_be_what_is_never_retried(stage: Stage) -> None:
    @handles(TYPE, timeout=0.05, never_retry=(TimeoutError,))
    async def handle(command: Command[Any]) -> None:
        await asyncio.Event().wait()

    id = await stage.post()
    async with stage.working(handle):
        assert (await stage.outcome(id)).attempts == 1
    (letter,) = await stage.dead_letters()
    assert letter["reason"] == "never-retried"


async def test_a_no_stays_a_no_whatever_is_never_retried(stage: Stage) -> None:
    @handles(TYPE, never_retry=(Exception,))
    async def handle(command: Command[Any]) -> None:
        raise Rejected("sold out")

    id = await stage.post()
    async with stage.working(handle):
        assert (await stage.outcome(id)).status is Status.FAILED


@pytest.mark.parametrize("never", [ValueError, [ValueError], ("ValueError",), (SystemExit,)])
def test_only_a_tuple_of_exceptions_can_be_never_retried(never: Any) -> None:
    with pytest.raises(TypeError, match="expected a tuple of exceptions"):
        handles(TYPE, never_retry=never)


async def test_fewer_attempts_than_were_made_already_are_used_up(stage: Stage) -> None:
    @handles(TYPE, retries=9, backoff=0)
    async def generous(command: Command[Any]) -> None:
        if command.attempt == 4:
            await asyncio.Event().wait()
        raise Failing("again")

    @handles(TYPE, retries=1)
    async def strict(command: Command[Any]) -> None:
        raise AssertionError("it must not run")

    id = await stage.post()
    running = asyncio.create_task(stage.worker(generous).run())

    async def fourth() -> bool:
        status = await stage.status(id)
        return status is not None and status.attempts == 4

    await eventually(fourth, reason="the fourth attempt began")
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await stage.redis.hset(stage.keys.status(id), "status", "retrying")  # as if it had failed
    async with stage.working(strict):
        assert (await stage.outcome(id)).attempts == 4
    (letter,) = await stage.dead_letters()
    assert letter["reason"] == "attempts-used-up"
    assert letter["error"]["type"] == "TooManyAttempts"


class Mute(Exception):
    def __str__(self) -> str:
        raise ValueError


class Fatal(BaseException):
    pass


@pytest.mark.parametrize("plain", [True, False], ids=["plain", "async"])
@pytest.mark.parametrize(
    ("error", "told"),
    [
        (Mute(), "Mute: its __str__ raised ValueError"),
        (Failing("caf\udce9 \ud800"), "Failing: caf? ?"),
        (Fatal(), "HandlerQuit: it raised Fatal"),
        (GeneratorExit(), "HandlerQuit: it raised GeneratorExit"),
    ],
)
async def test_no_exception_takes_the_worker_with_it(
    stage: Stage, error: BaseException, told: str, plain: bool
) -> None:
    def fail(command: Command[Any]) -> None:
        if command.data == "poison":
            raise error

    async def fail_async(command: Command[Any]) -> None:
        fail(command)

    poison, other = await stage.post("poison"), await stage.post("other")
    async with stage.working(handles(TYPE, retries=0)(fail if plain else fail_async)):
        assert (await stage.outcome(poison)).error == told.partition(":")[0]
        (letter,) = await stage.dead_letters()
        assert f"{letter['error']['type']}: {letter['error']['message']}" == told
        assert (await stage.outcome(other)).status is Status.SUCCEEDED


@pytest.mark.parametrize(
    ("events", "size"), [(10_001, 1), (3, 6 << 20)], ids=["too many", "too large"]
)
async def test_more_than_one_commit_may_hold_is_refused(
    stage: Stage, events: int, size: int
) -> None:
    @handles(TYPE)
    def handle(command: Command[Any]) -> Any:
        return [Event("done", data="x" * size) for _ in range(events)]

    id = await stage.post()
    async with stage.working(handle):
        assert (await stage.outcome(id, within=30)).status is Status.DEAD_LETTERED
    (letter,) = await stage.dead_letters()
    assert letter["reason"] == "bad-answer"
    assert "at most 10000 events" in letter["error"]["message"]
    assert await stage.done() == []


# Who waits


async def test_a_command_that_steps_aside_lets_those_of_its_key_pass(
    stage: Stage, longest_delays: None
) -> None:
    @handles(TYPE, backoff=0.5, keep_order=False)
    async def handle(command: Command[str]) -> Event:
        if command.data == "first" and command.attempt < 3:
            raise Failing
        return Event("done", data=command.data)

    ids = [await stage.post(each, key="k") for each in ("first", "second", "third")]
    async with stage.working(handle):
        await stage.outcomes(ids)
    assert await stage.done() == ["second", "third", "first"]
    starts = [event["subject"] for event in await stage.log() if event["type"] == "command.started"]
    assert starts == [ids[0], ids[1], ids[2], ids[0], ids[0]]


async def test_a_command_that_keeps_its_order_is_waited_for(
    stage: Stage, longest_delays: None
) -> None:
    @handles(TYPE, backoff=0.3)
    async def handle(command: Command[str]) -> Event:
        if command.data == "first" and command.attempt < 3:
            raise Failing
        return Event("done", data=command.data)

    ids = [await stage.post(each, key="k") for each in ("first", "second", "third")]
    async with stage.working(handle):
        await stage.outcomes(ids)
    assert await stage.done() == ["first", "second", "third"]


@pytest.mark.parametrize("keep_order", [True, False], ids=["keeps order", "steps aside"])
async def test_a_successor_does_with_what_waits_as_its_handler_says(
    stage: Stage, longest_delays: None, keep_order: bool
) -> None:
    delay = 0.5 if keep_order else 3

    @handles(TYPE, backoff=delay, max_backoff=delay, keep_order=keep_order)
    async def handle(command: Command[str]) -> Event:
        if command.data == "first" and command.attempt == 1:
            raise Failing
        return Event("done", data=command.data)

    first = await stage.post("first", key="k")
    async with stage.working(handle):

        async def failed() -> bool:
            status = await stage.status(first)
            return status is not None and status.status is Status.RETRYING

        await eventually(failed, reason="the first attempt failed")
    second = await stage.post("second", key="k")
    async with stage.working(handle):
        await stage.outcomes([first, second])
    expected = ["first", "second"] if keep_order else ["second", "first"]
    assert await stage.done() == expected


async def test_those_of_one_key_never_run_together_though_they_step_aside(stage: Stage) -> None:
    running: set[str] = set()
    together: list[str] = []
    chance = random.Random(11)
    ends: dict[str, list[int]] = defaultdict(list)

    @handles(TYPE, retries=200, backoff=0.02, max_backoff=0.05, keep_order=False)
    async def handle(command: Command[list[Any]]) -> None:
        key, number = command.data
        together.extend(running & {key})
        running.add(key)
        try:
            await asyncio.sleep(chance.uniform(0, 0.01))
            if chance.random() < 0.4:
                raise Failing
            ends[key].append(number)
        finally:
            running.discard(key)

    async with stage.working(handle) as worker:
        for number in range(30):
            for key in "abcdefgh":
                await stage.post([key, number], key=key)
        await stage.drained()
        await empty(worker)
    assert together == []
    assert all(sorted(numbers) == list(range(30)) for numbers in ends.values())
    assert any(numbers != sorted(numbers) for numbers in ends.values())


@pytest.mark.parametrize(
    "wrong", [{"timeout": "10s"}, {"retries": "5"}, {"backoff": "1s"}, {"max_backoff": None}]
)
def test_a_parameter_that_is_no_number_is_told_with_what_was_expected(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"expected .*, such as .*, but got"):
        handles("do", **wrong)
