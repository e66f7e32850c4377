"""Dead letters in the log: kept whole and within bounds, found, redriven and discarded."""

import asyncio
import logging
from collections import Counter
from typing import Any

import msgspec
import pytest

from gateway import Command, Event, handles
from gateway.broker.deadletters import DeadLetters, Filter, Reason
from gateway.broker.streams import partition_of
from gateway.commands import CommandStatus, Envelope, Status
from gateway.config import CommandConfig
from gateway.errors import CannotRedrive, StartError, StreamFull, UnknownDeadLetter
from gateway.redrive import Redrive
from tests.servers import Broker, eventually
from tests.worker.stage import STREAM, TYPE, Stage, config_of

pytestmark = pytest.mark.anyio


class Failing(Exception):
    pass


@handles(TYPE, retries=1, backoff=0)
async def fail(command: Command[Any]) -> None:
    raise Failing(f"{command.data} at {command.attempt}")


@handles(TYPE, retries=1, backoff=0)
async def succeed(command: Command[Any]) -> Event:
    return Event("done", data={"was": command.data, "attempt": command.attempt})


@pytest.fixture
def stage(any_broker: Broker) -> Stage:
    return Stage(config_of(any_broker.config), any_broker.clients)


def letters(stage: Stage) -> DeadLetters:
    return stage.broker.dead_letters


def redrive(stage: Stage) -> Redrive:
    return Redrive(stage.broker.dead_letters, stage.policy)


async def bury(stage: Stage, *data: Any, **more: Any) -> list[str]:
    """Make dead letters of commands with these data, in this order; return their ids."""
    ids = []
    async with stage.working(fail):
        for each in data:
            ids.append(await stage.post(each, **more))
            assert (await stage.outcome(ids[-1])).status is Status.DEAD_LETTERED
    return ids


async def resurrect(stage: Stage, id: str) -> CommandStatus:
    async with stage.working(succeed):
        return await stage.outcome(id)


async def test_it_has_all_that_was_known_of_the_command(stage: Stage) -> None:
    (id,) = await bury(
        stage,
        {"a": 1},
        key="k",
        subject="s-1",
        correlationid="c-1",
        traceparent="00-1-2-01",
        tracestate="x=y",
        authtype="user",
        authid="u-1",
    )
    kept = await letters(stage).get(id)
    letter = kept.letter
    assert (letter.id, letter.type, letter.stream, letter.key) == (id, TYPE, STREAM, "k")
    assert (letter.reason, letter.attempts) == (Reason.ATTEMPTS, 2)
    assert str(letter.error) == "Failing: {'a': 1} at 2"
    assert "in fail" in letter.error.traceback
    envelope = msgspec.json.decode(kept.envelope, type=Envelope)
    assert (envelope.id, envelope.data) == (id, msgspec.Raw(b'{"a":1}'))
    assert (envelope.traceparent, envelope.tracestate) == ("00-1-2-01", "x=y")
    assert (envelope.authtype, envelope.authid) == ("user", "u-1")
    assert (envelope.subject, envelope.correlationid) == ("s-1", "c-1")


async def test_it_has_every_attempt_that_failed_and_the_status_keeps_none(stage: Stage) -> None:
    (id,) = await bury(stage, "x")
    failures = (await letters(stage).get(id)).letter.failures
    assert [(each.attempt, each.type, each.message) for each in failures] == [
        (1, "Failing", "x at 1"),
        (2, "Failing", "x at 2"),
    ]
    assert failures[0].at <= failures[1].at
    kept: Any = await stage.redis.hkeys(stage.keys.status(id))
    assert set(kept) & {b"failures", b"lost"} == set()


async def test_a_handler_with_many_attempts_has_the_newest_hundred_kept(stage: Stage) -> None:
    @handles(TYPE, retries=119, backoff=0)
    async def handle(command: Command[Any]) -> None:
        raise Failing("x" * 5000)

    id = await stage.post()
    async with stage.working(handle):
        assert (await stage.outcome(id)).attempts == 120
    failures = (await letters(stage).get(id)).letter.failures
    assert [each.attempt for each in failures] == list(range(21, 121))
    assert {len(each.message) for each in failures} == {200}


async def test_a_redriven_command_is_the_same_one_with_new_attempts(stage: Stage) -> None:
    (id,) = await bury(stage, "x", key="k")
    original = (await letters(stage).get(id)).envelope
    told = await redrive(stage)(id)
    assert (told.id, told.status, told.attempts) == (id, Status.ACCEPTED, 2)
    status = await stage.status(id)
    assert status is not None
    assert (status.status, status.attempts, status.error) == (Status.ACCEPTED, 2, None)
    assert status.finished_at is None
    assert status.accepted_at == told.accepted_at
    partition = partition_of("k", stage.config.broker.partitions)
    ((_, fields),) = await stage.entries(stage.keys.commands(STREAM, partition))
    assert fields[b"e"] == original
    assert await letters(stage).count() == 0
    status = await resurrect(stage, id)
    assert (status.status, status.attempts) == (Status.SUCCEEDED, 3)
    assert await stage.life(id) == [
        "accepted", "started", "retrying", "started", "dead-lettered",
        "accepted", "started", "succeeded",
    ]  # fmt: skip
    events = await stage.log()
    assert [event["id"] for event in events if event["id"].startswith(f"{id}-started")] == [
        f"{id}-started-{n}" for n in (1, 2, 3)
    ]
    assert [id for id, count in Counter(e["id"] for e in events).items() if count > 1] == []


async def test_a_redriven_command_that_fails_again_has_every_attempt(stage: Stage) -> None:
    (id,) = await bury(stage, "x")
    for attempts in (4, 6):
        await redrive(stage)(id)
        async with stage.working(fail):
            assert (await stage.outcome(id)).attempts == attempts
    letter = (await letters(stage).get(id)).letter
    assert [each.attempt for each in letter.failures] == [1, 2, 3, 4, 5, 6]


async def test_a_redriven_command_goes_behind_those_of_its_key(stage: Stage) -> None:
    (first,) = await bury(stage, "first", key="k")
    second = await stage.post("second", key="k")
    await redrive(stage)(first)
    async with stage.working(succeed):
        await stage.outcome(first)
    done = [event["causationid"] for event in await stage.log() if event["type"] == "done"]
    assert done == [second, first]


async def test_of_many_operators_one_redrives_and_the_others_hear_that_it_is_gone(
    stage: Stage,
) -> None:
    (id,) = await bury(stage, "x")
    answers = await asyncio.gather(*(redrive(stage)(id) for _ in range(20)), return_exceptions=True)
    gone = [each for each in answers if isinstance(each, UnknownDeadLetter)]
    assert len(gone) == 19
    assert await stage.backlog() == 1
    assert (await resurrect(stage, id)).attempts == 3


async def test_of_redrive_and_discard_at_once_one_happens(stage: Stage) -> None:
    ids = await bury(stage, *range(10))
    for id in ids:
        acts = [redrive(stage)(id), letters(stage).discard(id)]
        answers = await asyncio.gather(*acts, return_exceptions=True)
        assert [type(each) for each in answers].count(UnknownDeadLetter) == 1
    assert await letters(stage).count() == 0


async def test_a_discarded_one_is_gone_and_its_status_stays(stage: Stage) -> None:
    (id,) = await bury(stage, "x")
    await letters(stage).discard(id)
    for act in (letters(stage).get(id), letters(stage).discard(id), redrive(stage)(id)):
        with pytest.raises(UnknownDeadLetter, match="or no longer"):
            await act
    status = await stage.status(id)
    assert status is not None
    assert status.status is Status.DEAD_LETTERED
    assert await stage.backlog() == 0


async def test_a_command_is_redriven_long_after_its_status_was_forgotten(stage: Stage) -> None:
    (id,) = await bury(stage, "x")
    await stage.redis.delete(stage.keys.status(id))
    await redrive(stage)(id)
    assert await stage.redis.ttl(stage.keys.status(id)) == -1  # it must not expire while it waits
    status = await resurrect(stage, id)
    assert (status.status, status.attempts, status.type) == (Status.SUCCEEDED, 3, TYPE)


async def test_a_full_partition_keeps_the_letter(any_broker: Broker) -> None:
    config = msgspec.structs.replace(any_broker.config, max_backlog=2)
    stage = Stage(config_of(config), any_broker.clients)
    (id,) = await bury(stage, "x", key="k")
    for _ in range(2):
        await stage.post(key="k")
    with pytest.raises(StreamFull):
        await redrive(stage)(id)
    assert (await letters(stage).get(id)).letter.id == id
    status = await stage.status(id)
    assert status is not None
    assert status.status is Status.DEAD_LETTERED


async def test_what_no_worker_would_read_is_refused_unless_it_is_sent_elsewhere(
    any_broker: Broker,
) -> None:
    stage = Stage(config_of(any_broker.config), any_broker.clients)
    (id,) = await bury(stage, "x", key="k")
    command = CommandConfig(path="/do", type=TYPE, stream="other")
    later = Stage(msgspec.structs.replace(stage.config, commands=[command]), any_broker.clients)
    with pytest.raises(CannotRedrive, match="got 'work'; the streams are: other"):
        await redrive(later)(id)
    with pytest.raises(CannotRedrive, match="got 'nowhere'"):
        await redrive(later)(id, to="nowhere")
    await redrive(later)(id, to="other")
    assert (await resurrect(later, id)).status is Status.SUCCEEDED


async def test_a_command_follows_its_key_to_another_number_of_partitions(
    any_broker: Broker,
) -> None:
    stage = Stage(config_of(any_broker.config), any_broker.clients)
    (id,) = await bury(stage, "x", key="k")
    config = msgspec.structs.replace(any_broker.config, partitions=3)
    fewer = Stage(config_of(config), any_broker.clients)
    with pytest.raises(StartError, match="expected 16 partitions"):
        await redrive(fewer)(id)
    assert await letters(stage).count() == 1
    names = [stage.keys.commands(STREAM, partition) for partition in range(16)]
    await stage.redis.delete(stage.keys.partitions, *names)
    await redrive(fewer)(id)
    newest = await fewer.entries(stage.keys.commands(STREAM, partition_of("k", 3)))
    assert len(newest) == 1
    assert (await resurrect(fewer, id)).status is Status.SUCCEEDED


async def test_what_is_no_command_can_be_shown_and_discarded_but_not_redriven(
    stage: Stage,
) -> None:
    await stage.broker.commands.open([STREAM])
    await stage.redis.xadd(stage.keys.commands(STREAM, 5), {"e": b"\xff{"})
    async with stage.working(fail):
        await stage.drained()
    page = await letters(stage).page(limit=10)
    (letter,) = page.letters
    assert (letter.reason, letter.partition) == (Reason.ENVELOPE, 5)
    assert (await letters(stage).get(letter.id)).document()["command_base64"] == "/3s="
    with pytest.raises(CannotRedrive, match="no command"):
        await redrive(stage)(letter.id)
    await letters(stage).discard(letter.id)
    assert await letters(stage).count() == 0


async def test_they_are_listed_newest_first_in_pages_by_type_stream_and_reason(
    any_broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.broker.deadletters.SCANNED", 4)
    stage = Stage(config_of(any_broker.config), any_broker.clients)
    ids = []
    async with stage.working(fail):
        for number in range(15):
            ids.append(await stage.post(type="undo" if number % 5 == 0 else TYPE))
            await stage.outcome(ids[-1])
    newest, undone = ids[::-1], ids[::5][::-1]

    async def listed(wanted: Filter, size: int) -> list[list[str]]:
        pages = []
        after: str | None = ""
        while after is not None:
            page = await letters(stage).page(wanted, limit=size, after=after)
            pages.append([letter.id for letter in page.letters])
            after = page.after
        return pages

    assert await listed(Filter(), 100) == [newest]
    assert await listed(Filter(), 6) == [newest[:6], newest[6:12], newest[12:]]
    assert await listed(Filter(type="undo"), 2) == [undone[:2], undone[2:]]
    assert await listed(Filter(type="undo", reason="no-handler"), 1) == [[id] for id in undone] + [
        []
    ]
    assert await listed(Filter(type="undo", reason="bad-data"), 5) == [[]]
    assert await listed(Filter(stream=STREAM), 100) == [newest]
    assert await listed(Filter(stream="other"), 100) == [[]]
    every = [letter.id async for letter in letters(stage).all(Filter(type="undo"))]
    assert every == undone
    assert [letter.id async for letter in letters(stage).all(limit=7)] == newest[:7]


async def test_beyond_the_bound_the_oldest_go_and_it_is_said(
    any_broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    config = msgspec.structs.replace(any_broker.config, max_dead_letters=3)
    stage = Stage(config_of(config), any_broker.clients)
    with caplog.at_level(logging.WARNING, "gateway.broker"):
        ids = await bury(stage, *range(5))
    assert [letter.id async for letter in letters(stage).all()] == ids[:1:-1]
    warnings = [each.message for each in caplog.records if "too many" in each.message]
    assert [id in message for id, message in zip(ids, warnings, strict=False)] == [True, True]
    assert len(warnings) == 2
    with pytest.raises(UnknownDeadLetter):
        await letters(stage).get(ids[0])
    figures = await stage.broker.figures.read()
    assert (figures.dead_letters, figures.streams[0].dead_letters) == (3, 3)


async def test_a_letter_that_was_removed_by_hand_is_not_there(stage: Stage) -> None:
    first, second = await bury(stage, 1, 2)
    kept = await letters(stage).get(first)
    await stage.redis.xdel(stage.keys.dead_letters, kept.entry)
    with pytest.raises(UnknownDeadLetter):
        await letters(stage).get(first)
    with pytest.raises(UnknownDeadLetter):
        await letters(stage).discard(first)
    assert [letter.id async for letter in letters(stage).all()] == [second]
    assert (await stage.broker.figures.read()).streams[0].dead_letters == 1


async def test_the_figures_tell_what_waits_and_who_lags(stage: Stage) -> None:
    assert (await stage.broker.figures.read()).streams == []
    await bury(stage, 1, 2)
    assert (await stage.broker.figures.read()).nodes == []
    await stage.broker.events.join("here")
    begun, go_on = asyncio.Event(), asyncio.Event()

    @handles(TYPE)
    async def handle(command: Command[Any]) -> None:
        begun.set()
        await go_on.wait()

    waiting = [await stage.post(key="k") for _ in range(3)]
    async with stage.working(handle):
        read = stage.broker.figures.read

        async def taken() -> Any:
            figures = (await read()).streams[0]
            return figures if figures.pending == 3 else None

        figures = await eventually(taken, within=30, reason="the worker took them")
        assert (figures.name, figures.partitions, figures.backlog) == (STREAM, 16, 3)
        assert (figures.workers, figures.dead_letters) == (1, 2)
        await begun.wait()
        (node,) = (await read()).nodes
        assert (node.name, node.lag) == ("here", 4)
        go_on.set()
        for id in waiting:
            await stage.outcome(id)
    figures = (await read()).streams[0]
    assert (figures.backlog, figures.pending, figures.workers) == (0, 0, 0)
    assert (await read()).dead_letters == 2
