"""Repetitions at the log: the same request is appended once, in one step with being remembered."""

import asyncio
from collections import Counter
from typing import Any

import msgspec
import pytest

from gateway import idempotency
from gateway.broker.broker import Broker
from gateway.broker.keys import Keys
from gateway.broker.streams import CommandStreams
from gateway.channels import EARLIEST
from gateway.commands import CommandStatus, Envelope, Status, life_event
from gateway.errors import KeyReused, StreamFull
from gateway.events import Event, Publication, Retention, encode, new_id, now, with_channel
from gateway.idempotency import NONE, Identity
from gateway.settings import Seconds
from tests.servers import Broker as Server
from tests.servers import eventually

STREAM = "work"


class Log:
    """One log, and what is in it."""

    def __init__(self, server: Server, **changes: Any) -> None:
        config = msgspec.structs.replace(server.config, partitions=1, **changes)
        self.broker = Broker(config, server.clients)
        self.keys = Keys(config.namespace)
        self.redis = server.clients.commands

    @property
    def commands(self) -> CommandStreams:
        return self.broker.commands

    async def accept(self, identity: Identity = NONE) -> tuple[str, str]:
        """Append a command; returns its id and the id that the answer tells."""
        envelope = Envelope(id=new_id(), type="do", source="/do", time=now())
        status = CommandStatus(
            id=envelope.id,
            type="do",
            status=Status.ACCEPTED,
            attempts=0,
            accepted_at=envelope.time,
        )
        life = Publication("life", life_event(status, envelope, time=envelope.time), 10_000, 60_000)
        encoded = msgspec.json.encode(envelope)
        accept = self.commands.accept
        return envelope.id, await accept(STREAM, envelope, encoded, life, identity=identity)

    async def backlog(self) -> int:
        length: int = await self.redis.xlen(self.keys.commands(STREAM, 0))
        return length

    async def publish(self, *events: Event) -> None:
        await self.broker.events.publish(
            [
                (
                    idempotency.of_event(event),
                    [
                        Publication(channel, with_channel(encode(event), channel), 10_000, 60_000)
                        for channel in ("a", "b")
                    ],
                )
                for event in events
            ]
        )

    async def published(self, channel: str) -> list[str]:
        """The ids of the events that a channel retains."""
        page = await self.broker.events.read_history(
            channel, EARLIEST, retention=Retention(60_000), count=100
        )
        return [msgspec.json.decode(event)["id"] for _, event in page.entries]


@pytest.fixture
def log(any_broker: Server) -> Log:
    return Log(any_broker)


async def test_a_repeated_command_is_appended_once_and_has_the_first_answer(log: Log) -> None:
    identity = idempotency.of_command("k", "/do", {})
    first, told = await log.accept(identity)
    assert told == first
    _, told = await log.accept(identity)
    assert told == first
    assert await log.backlog() == 1


async def test_of_many_twins_at_once_one_is_appended_and_all_hear_of_it(log: Log) -> None:
    identity = idempotency.of_command("k", "/do", {})
    answers = await asyncio.gather(*(log.accept(identity) for _ in range(100)))
    assert len({told for _, told in answers}) == 1
    assert await log.backlog() == 1


async def test_another_command_under_the_same_key_is_refused_and_leaves_nothing(log: Log) -> None:
    await log.accept(idempotency.of_command("k", "/do", {"n": 1}))
    with pytest.raises(KeyReused, match="the same command as before"):
        await log.accept(idempotency.of_command("k", "/do", {"n": 2}))
    assert await log.backlog() == 1


async def test_commands_without_a_key_are_never_taken_for_repetitions(log: Log) -> None:
    await log.accept()
    await log.accept()
    assert await log.backlog() == 2


async def test_a_command_is_remembered_for_the_configured_time(broker: Server) -> None:
    log = Log(broker, idempotency_ttl=Seconds(0.2))
    identity = idempotency.of_command("k", "/do", {})
    await log.accept(identity)

    async def forgotten() -> bool:
        return not await log.redis.exists(log.keys.identity(identity.name))

    await eventually(forgotten, reason="the identity expired")
    second, told = await log.accept(identity)
    assert told == second
    assert await log.backlog() == 2


async def test_a_full_partition_takes_no_more_and_forgets_that_it_was_asked(
    any_broker: Server,
) -> None:
    log = Log(any_broker, max_backlog=3)
    for _ in range(3):
        await log.accept()
    identity = idempotency.of_command("k", "/do", {})
    with pytest.raises(StreamFull, match="3 commands wait"):
        await log.accept(identity)
    await log.redis.xtrim(log.keys.commands(STREAM, 0), maxlen=2, approximate=False)
    mine, told = await log.accept(identity)
    assert told == mine


async def test_a_repetition_is_known_also_where_the_partition_is_full(any_broker: Server) -> None:
    log = Log(any_broker, max_backlog=1)
    identity = idempotency.of_command("k", "/do", {})
    first, _ = await log.accept(identity)
    _, told = await log.accept(identity)
    assert told == first


async def test_a_repeated_event_is_appended_once_to_each_of_its_channels(log: Log) -> None:
    event = Event("t", id="1", source="/s", data={"n": 1})
    await log.publish(event)
    await log.publish(event, Event("t", id="2", source="/s"), event)
    assert await log.published("a") == ["1", "2"]
    assert await log.published("b") == ["1", "2"]


async def test_a_batch_with_another_event_under_a_known_id_is_refused_whole(log: Log) -> None:
    await log.publish(Event("t", id="1", source="/s", data=1))
    with pytest.raises(KeyReused, match="event 2 to be the same"):
        await log.publish(Event("t", id="2", source="/s"), Event("t", id="1", source="/s", data=2))
    assert await log.published("a") == ["1"]


async def test_two_events_of_one_batch_with_the_same_id_must_be_the_same(log: Log) -> None:
    with pytest.raises(KeyReused, match="event 2"):
        await log.publish(
            Event("t", id="1", source="/s", data=1), Event("t", id="1", source="/s", data=2)
        )
    assert await log.published("a") == []


async def test_events_without_ids_are_never_taken_for_repetitions(log: Log) -> None:
    await log.publish(Event("t", source="/s"), Event("t", source="/s"))
    assert len(await log.published("a")) == 2


async def test_of_concurrent_batches_each_event_is_appended_once(log: Log) -> None:
    events = [Event("t", id=str(number), source="/s") for number in range(10)]
    await asyncio.gather(*(log.publish(*events[n % 5 :]) for n in range(50)))
    assert Counter(await log.published("a")) == Counter(str(n) for n in range(10))


async def test_everything_that_is_remembered_is_forgotten_in_time(log: Log) -> None:
    await log.publish(Event("t", id="1", source="/s"))
    await log.accept(idempotency.of_command("k", "/do", {}))
    names = [name async for name in log.redis.scan_iter(match=log.keys.identity("*"))]
    assert len(names) == 2
    for name in names:
        assert 0 < await log.redis.ttl(name) <= 86_400
