"""One command from its entry to its outcome: success, failure, a no, a dead letter."""

import asyncio
import base64
import itertools
import sys
import threading
import time
from typing import Any

import msgspec
import pytest

from gateway import Command, Event, Outcome, Rejected, handles
from gateway.commands import Status
from tests.servers import eventually
from tests.worker.stage import STREAM, TYPE, Stage

pytestmark = pytest.mark.anyio


class Order(msgspec.Struct):
    sku: str
    qty: int


async def test_a_command_is_handled_and_its_events_name_their_cause(any_stage: Stage) -> None:
    @handles(TYPE)
    async def handle(command: Command[Order]) -> Outcome:
        events = [Event("placed", data=command.data), Event("counted", id="mine", source="/me")]
        return Outcome(events, result={"total": command.data.qty * 2})

    id = await any_stage.post(
        {"sku": "tea", "qty": 2},
        key="c-1",
        traceparent="00-abc",
        authtype="user",
        authid="u-1",
    )
    async with any_stage.working(handle):
        status = await any_stage.outcome(id)
    assert (status.status, status.attempts, status.result) == (Status.SUCCEEDED, 1, {"total": 4})
    assert status.finished_at is not None
    assert await any_stage.life(id) == ["accepted", "started", "succeeded"]
    placed, counted = [e for e in await any_stage.log() if e["type"] in ("placed", "counted")]
    assert placed["data"] == {"sku": "tea", "qty": 2}
    assert (placed["id"], placed["source"]) == (f"{id}-1", "/handlers/do")
    assert (counted["id"], counted["source"]) == ("mine", "/me")
    for event in (placed, counted):
        assert event["channel"] == "log"
        assert (event["correlationid"], event["causationid"]) == (id, id)
        assert (event["traceparent"], event["authtype"], event["authid"]) == (
            "00-abc",
            "user",
            "u-1",
        )


async def test_the_started_event_tells_the_number_of_its_attempt(any_stage: Stage) -> None:
    @handles(TYPE, backoff=0)
    async def handle(command: Command[Any]) -> None:
        if command.attempt < 3:
            raise ValueError('quoted "attempts":0 and -started-0"')

    id = await any_stage.post('"attempts":0,-started-0"')
    async with any_stage.working(handle):
        assert (await any_stage.outcome(id)).attempts == 3
    started = [event for event in await any_stage.log() if event["type"] == "command.started"]
    assert [event["data"]["attempts"] for event in started] == [1, 2, 3]
    assert [event["id"] for event in started] == [f"{id}-started-{n}" for n in (1, 2, 3)]
    assert await any_stage.life(id) == [
        "accepted", "started", "retrying", "started", "retrying", "started", "succeeded",
    ]  # fmt: skip


async def test_an_error_of_an_earlier_attempt_does_not_stay_with_a_success(stage: Stage) -> None:
    @handles(TYPE, backoff=0)
    async def handle(command: Command[Any]) -> None:
        if command.attempt == 1:
            raise ValueError("not yet")

    id = await stage.post()
    async with stage.working(handle):
        status = await stage.outcome(id)
    assert (status.status, status.error) == (Status.SUCCEEDED, None)
    (retrying,) = [e for e in await stage.log() if e["type"] == "command.retrying"]
    assert retrying["data"]["error"] == "ValueError"
    assert retrying["data"]["retry_in_ms"] == 0


async def test_a_command_whose_attempts_are_used_up_becomes_a_dead_letter(any_stage: Stage) -> None:
    seen = []

    @handles(TYPE, retries=2, backoff=0.01)
    async def handle(command: Command[Any]) -> None:
        seen.append(command.attempt)
        raise LookupError("no such thing")

    id = await any_stage.post({"a": 1}, key="k")
    async with any_stage.working(handle):
        status = await any_stage.outcome(id)
        await any_stage.drained()
    assert seen == [1, 2, 3]
    assert (status.status, status.attempts) == (Status.DEAD_LETTERED, 3)
    assert status.error == "LookupError"  # its message is not for everybody
    assert (await any_stage.life(id))[-1] == "dead-lettered"
    (letter,) = await any_stage.dead_letters()
    assert (letter["id"], letter["stream"], letter["attempts"]) == (id, STREAM, 3)
    assert letter["reason"] == "attempts-used-up"
    assert letter["error"]["type"] == "LookupError"
    assert letter["error"]["message"] == "no such thing"
    assert "no such thing" in letter["error"]["traceback"]
    assert letter["command"]["data"] == {"a": 1}
    assert letter["key"] == letter["command"]["partitionkey"] == "k"
    assert letter["accepted_at"] <= letter["dead_lettered_at"]


async def test_a_dead_letter_has_the_original_bytes(stage: Stage) -> None:
    @handles(TYPE, retries=0)
    async def handle(command: Command[Any]) -> None:
        raise ValueError

    id = await stage.post(raw=b'{"a" : 1.0e2, "b":"\\u00e9"}')
    async with stage.working(handle):
        await stage.outcome(id)
    kept = await stage.broker.dead_letters.get(id)
    assert b'"data":{"a" : 1.0e2, "b":"\\u00e9"}' in kept.envelope


async def test_a_rejected_command_fails_without_retry_or_dead_letter(stage: Stage) -> None:
    seen = []

    @handles(TYPE)
    async def handle(command: Command[Any]) -> None:
        seen.append(command.attempt)
        raise Rejected("out of stock", events=[Event("refused", data={"why": "stock"})])

    id = await stage.post()
    async with stage.working(handle):
        status = await stage.outcome(id)
    assert (status.status, status.error) == (Status.FAILED, "out of stock")
    assert seen == [1]
    assert await stage.dead_letters() == []
    assert await stage.life(id) == ["accepted", "started", "failed"]
    (refused,) = [event for event in await stage.log() if event["type"] == "refused"]
    assert refused["causationid"] == id


async def test_a_handler_that_takes_too_long_is_cancelled_and_tried_again(stage: Stage) -> None:
    cancelled = []

    @handles(TYPE, timeout=0.05, retries=1, backoff=0)
    async def handle(command: Command[Any]) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(command.attempt)
            raise

    id = await stage.post()
    async with stage.working(handle):
        status = await stage.outcome(id)
    assert cancelled == [1, 2]
    assert status.error == "HandlerTimedOut"


async def test_a_plain_function_runs_in_a_thread(stage: Stage) -> None:
    threads = []

    @handles(TYPE)
    def handle(command: Command[Order]) -> Any:
        threads.append(threading.current_thread())
        yield Event("packed", data={"sku": command.data.sku})

    id = await stage.post({"sku": "tea", "qty": 1})
    async with stage.working(handle):
        assert (await stage.outcome(id)).status is Status.SUCCEEDED
    assert threads != [threading.main_thread()]
    (packed,) = [event for event in await stage.log() if event["type"] == "packed"]
    assert packed["data"] == {"sku": "tea"}


async def test_a_thread_past_its_timeout_has_failed_but_holds_back_its_key(stage: Stage) -> None:
    running: list[str] = []
    release = threading.Event()

    @handles(TYPE, timeout=0.05, retries=0)
    def handle(command: Command[Any]) -> None:
        assert running == []
        running.append(command.id)
        if command.data == "slow":
            release.wait(10)
        running.remove(command.id)

    slow, next = await stage.post("slow", key="k"), await stage.post("next", key="k")
    async with stage.working(handle):
        await eventually(lambda: running, reason="the slow one ran")
        await asyncio.sleep(0.2)  # its timeout is over by now
        assert running == [slow]
        release.set()
        assert (await stage.outcome(slow)).status is Status.DEAD_LETTERED
        assert (await stage.outcome(next)).status is Status.SUCCEEDED


@pytest.mark.parametrize("plain", [True, False])
async def test_a_handler_that_exits_has_failed(stage: Stage, plain: bool) -> None:
    def quit(command: Command[Any]) -> None:
        sys.exit(3)

    async def quit_async(command: Command[Any]) -> None:
        sys.exit(3)

    id = await stage.post()
    async with stage.working(handles(TYPE, retries=0)(quit if plain else quit_async)):
        status = await stage.outcome(id)
    assert status.error == "HandlerQuit"


async def test_a_handler_that_lets_a_cancellation_through_has_failed(stage: Stage) -> None:
    @handles(TYPE, retries=0)
    async def handle(command: Command[Any]) -> None:
        waiting = asyncio.get_running_loop().create_future()
        waiting.cancel()
        await waiting

    id = await stage.post()
    async with stage.working(handle):
        status = await stage.outcome(id)
    assert status.error == "HandlerQuit"
    (letter,) = await stage.dead_letters()
    assert letter["error"]["message"] == "something that it waited for was cancelled"


async def test_data_that_cannot_be_decoded_is_not_tried_again(stage: Stage) -> None:
    @handles(TYPE)
    async def handle(command: Command[Order]) -> None:
        raise AssertionError("it must not run")

    id = await stage.post({"sku": "tea", "qty": "many"})
    async with stage.working(handle):
        status = await stage.outcome(id)
    assert (status.status, status.attempts) == (Status.DEAD_LETTERED, 1)
    assert "$.qty" in (status.error or "")  # the sender can mend it
    (letter,) = await stage.dead_letters()
    assert letter["reason"] == "bad-data"
    assert "$.qty" in letter["error"]["message"]


@pytest.mark.parametrize(
    "answer",
    [
        "text",
        [1],
        Event("placed", data=object()),
        Event("placed", channel="nowhere"),
        Outcome(result=object()),
        Outcome([Event("placed")], result={1: {object()}}),
    ],
    ids=["no event", "a list of none", "no JSON", "no channel", "result", "nested result"],
)
async def test_an_answer_that_cannot_be_published_is_not_tried_again(
    stage: Stage, answer: Any
) -> None:
    seen = []

    @handles(TYPE)
    async def handle(command: Command[Any]) -> Any:
        seen.append(command.attempt)
        return answer

    id = await stage.post()
    async with stage.working(handle):
        status = await stage.outcome(id)
    assert (status.status, seen) == (Status.DEAD_LETTERED, [1])
    (letter,) = await stage.dead_letters()
    assert letter["reason"] == "bad-answer"
    assert [event for event in await stage.log() if event["type"] == "placed"] == []


async def test_a_command_without_handler_becomes_a_dead_letter(stage: Stage) -> None:
    @handles(TYPE)
    async def handle(command: Command[Any]) -> None: ...

    id = await stage.post(type="undo")
    async with stage.working(handle):
        await stage.outcome(id)
    (letter,) = await stage.dead_letters()
    assert (letter["reason"], letter["type"]) == ("no-handler", "undo")


@pytest.mark.parametrize("fields", [{"e": b"\xff{"}, {"e": b"{}"}, {"other": b"x"}])
async def test_an_entry_that_is_no_command_does_not_stop_the_others(
    stage: Stage, fields: dict[Any, Any]
) -> None:
    @handles(TYPE)
    async def handle(command: Command[Any]) -> None: ...

    for partition in range(stage.config.broker.partitions):
        await stage.redis.xadd(stage.keys.commands(STREAM, partition), fields)
    id = await stage.post()
    async with stage.working(handle):
        assert (await stage.outcome(id)).status is Status.SUCCEEDED
        await stage.drained()
    letters = await stage.dead_letters()
    assert {letter["reason"] for letter in letters} == {"bad-envelope"}
    assert len(letters) == stage.config.broker.partitions
    if fields == {"e": b"\xff{"}:
        assert base64.b64decode(letters[0]["command_base64"]) == b"\xff{"


async def test_what_waits_for_its_retry_holds_back_its_key_alone(stage: Stage) -> None:
    done: list[str] = []

    @handles(TYPE, backoff=0.4, max_backoff=0.4, retries=50)
    async def handle(command: Command[Any]) -> None:
        if command.data == "first" and not go.is_set():
            raise ValueError
        done.append(command.data)

    go = asyncio.Event()
    await stage.post("first", key="k")
    await stage.post("second", key="k")
    async with stage.working(handle):
        id = await stage.post("other", key="l")
        await stage.outcome(id)
        await stage.outcome(await stage.post("keyless"))
        assert sorted(done) == ["keyless", "other"]
        go.set()
        await stage.drained()
    assert [each for each in done if each in ("first", "second")] == ["first", "second"]


async def test_a_retry_waits_for_its_delay_and_at_most_for_its_bound(stage: Stage) -> None:
    starts: list[float] = []

    @handles(TYPE, retries=3, backoff=0.1, max_backoff=0.2)
    async def handle(command: Command[Any]) -> None:
        starts.append(time.monotonic())
        raise ValueError

    id = await stage.post()
    async with stage.working(handle):
        await stage.outcome(id)
    told = [e["data"]["retry_in_ms"] for e in await stage.log() if e["type"] == "command.retrying"]
    gaps = [(later - earlier) * 1000 for earlier, later in itertools.pairwise(starts)]
    assert len(told) == 3
    assert all(0 <= ms <= bound for ms, bound in zip(told, (100, 200, 200), strict=True))
    assert all(gap >= ms - 2 for gap, ms in zip(gaps, told, strict=True))
