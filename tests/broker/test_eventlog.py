"""The event log on each kind of server: order, retention, and `recovered` to the letter."""

import asyncio
import secrets
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.broker.broker import Broker as GatewayBroker
from gateway.broker.eventlog import EventLog, Lost
from gateway.broker.keys import Keys
from gateway.channels import EARLIEST, EntryId, Position
from gateway.events import Publication, Retention
from tests.servers import Broker, eventually

HOUR = 3_600_000
FOR_LONG = Retention(HOUR)
"""Milliseconds."""


class Stage:
    """An event log, and the keys behind it."""

    def __init__(self, broker: Broker, *, log_size: int = 100_000) -> None:
        config = msgspec.structs.replace(
            broker.config, log_size=log_size, namespace=f"log-{secrets.token_hex(4)}"
        )
        self.log: EventLog = GatewayBroker(config, broker.clients).events
        self.redis = broker.clients.commands
        self.keys = Keys(config.namespace)

    async def append(
        self, channel: str, *events: str, size: int = 100, ttl: int = HOUR
    ) -> list[EntryId]:
        """Append events in one step and return the ids of their entries."""
        publications = [Publication(channel, event.encode(), size, ttl) for event in events]
        return [EntryId.parse(id) for id in await self.log.append(publications)]

    async def epoch(self) -> str:
        epoch: Any = await self.redis.hget(self.keys.log, "epoch")
        return str(epoch, "ascii")

    async def position(self, id: EntryId) -> Position:
        return Position(await self.epoch(), id)

    async def read(
        self, channel: str, after: EntryId | Position | str, *, ttl: int = HOUR, **limits: int
    ) -> tuple[bool, list[str]]:
        """Return whether a position can be recovered, and the events after it."""
        page = await self.page(channel, after, Retention(ttl), **limits)
        return page.recovered, [event.decode() for _, event in page.entries]

    async def page(
        self,
        channel: str,
        after: EntryId | Position | str,
        retention: Retention = FOR_LONG,
        **limits: int,
    ) -> Any:
        place = await self.position(after) if isinstance(after, EntryId) else after
        return await self.log.read_history(
            channel, place, retention=retention, **{"count": 1000, **limits}
        )

    async def now(self) -> int:
        """The server's clock in milliseconds."""
        seconds, micros = await self.redis.time()
        return int(seconds * 1000 + micros // 1000)


@pytest.fixture
def stage(any_broker: Broker) -> Stage:
    """An empty log on each kind of server in turn."""
    return Stage(any_broker)


async def test_an_event_has_one_id_in_the_log_and_in_its_channel(stage: Stage) -> None:
    first, second = await stage.append("a", "one", "two")
    (third,) = await stage.append("b", "three")
    assert first < second < third
    log: Any = await stage.redis.xrange(stage.keys.events)
    assert [(EntryId.parse(id), fields) for id, fields in log] == [
        (first, {b"c": b"a", b"e": b"one", b"n": b"1"}),
        (second, {b"c": b"a", b"e": b"two", b"n": b"2"}),
        (third, {b"c": b"b", b"e": b"three", b"n": b"3"}),
    ]
    assert await stage.read("a", EARLIEST) == (True, ["one", "two"])
    page = await stage.page("a", first)
    assert [EntryId.parse(id) for id, _ in page.entries] == [second]
    assert page.last == third


async def test_a_channel_keeps_as_many_as_it_is_told_and_knows_its_floor(stage: Stage) -> None:
    ids = [(await stage.append("a", str(number), size=3))[0] for number in range(6)]
    kept = ["3", "4", "5"]
    for number, id in enumerate(ids):
        assert await stage.read("a", id) == (number >= 2, kept[max(number - 2, 0) :])
    before = EntryId(ids[2].ms, ids[2].seq - 1) if ids[2].seq else EntryId(ids[2].ms - 1, 0)
    assert await stage.read("a", before) == (False, kept)
    assert await stage.read("a", EARLIEST) == (True, kept)


async def test_a_smaller_size_trims_at_the_next_event(stage: Stage) -> None:
    _, second, *_ = await stage.append("a", *"abcdef")
    await stage.append("a", "g", size=2)
    assert await stage.read("a", second) == (False, ["f", "g"])
    assert await stage.read("a", EARLIEST) == (True, ["f", "g"])


async def test_who_is_told_of_a_gap_begins_at_a_place_without_one(stage: Stage) -> None:
    (first, *_) = await stage.append("a", *"abcdef", size=3)
    for after in (
        first,
        Position("other", first),
        Position(await stage.epoch(), EntryId(9**15, 0)),
    ):
        page = await stage.page("a", after)
        assert not page.recovered
        assert await stage.read("a", page.after) == (True, ["d", "e", "f"])


async def test_nothing_beyond_the_end_or_of_another_epoch_can_be_recovered(stage: Stage) -> None:
    (id,) = await stage.append("a", "one")
    beyond = EntryId(id.ms, id.seq + 1)
    assert await stage.read("a", beyond) == (False, ["one"])
    assert await stage.read("a", Position("0", id)) == (False, ["one"])
    assert await stage.read("a", id) == (True, [])


async def test_a_channel_that_is_empty_is_recovered_from_what_is_younger_than_its_retention(
    stage: Stage,
) -> None:
    (old,) = await stage.append("b", "elsewhere")
    await eventually(lambda: _is_older(stage, old, 60), reason="time passed")
    (new,) = await stage.append("b", "elsewhere")
    await stage.append("b", "elsewhere")
    assert await stage.read("empty", old, ttl=HOUR) == (True, [])
    assert await stage.read("empty", old, ttl=50) == (False, [])
    assert await stage.read("empty", new, ttl=HOUR) == (True, [])


async def _is_older(stage: Stage, id: EntryId, age: int) -> bool:
    return await stage.now() - id.ms > age


async def test_the_end_of_the_log_is_recovered_however_old_it_is(stage: Stage) -> None:
    (id,) = await stage.append("a", "one", ttl=20)
    await eventually(lambda: _is_older(stage, id, 40), reason="time passed")
    assert await stage.read("a", id, ttl=20) == (True, [])


async def test_what_was_kept_for_less_before_is_not_known_to_be_there(stage: Stage) -> None:
    assert await stage.log.retain({"a": 60, "b": 0, "c": HOUR}) == {"a": 0, "b": 0, "c": 0}
    (old,) = await stage.append("a", "old", ttl=60)
    await stage.append("b", "never kept", size=0, ttl=0)
    await eventually(lambda: _is_older(stage, old, 150), reason="what was kept has expired")
    since = await stage.log.retain({"a": HOUR, "b": HOUR, "c": HOUR})
    assert since["a"] < await stage.now() - 60 + 1000
    assert since["b"] > since["a"] > old.ms
    assert since["c"] == 0
    for channel, recovered in (("a", False), ("b", False), ("c", True)):
        page = await stage.page(channel, old, Retention(HOUR, since[channel]))
        assert page.recovered is recovered, channel
    (new,) = await stage.append("a", "new", ttl=HOUR)
    assert (await stage.page("a", new, Retention(HOUR, since["a"]))).recovered
    assert await stage.log.retain({"a": HOUR, "b": 10, "c": 10}) == since
    await eventually(lambda: _is_older(stage, new, 50), reason="time passed")
    assert (await stage.log.retain({"a": HOUR, "b": HOUR}))["b"] > since["b"]


async def test_a_pattern_that_is_new_to_a_log_with_events_is_kept_from_now_on(stage: Stage) -> None:
    (old,) = await stage.append("a", "old", size=0, ttl=0)
    since = await stage.log.retain({"a": HOUR})
    assert old.ms <= since["a"] <= await stage.now()


async def test_events_expire_one_by_one(stage: Stage) -> None:
    first, second = await stage.append("a", "one", "two", ttl=60)
    await eventually(lambda: _is_older(stage, second, 80), reason="the first events expired")
    (third,) = await stage.append("a", "three", ttl=60)
    assert await stage.read("a", first, ttl=60) == (False, ["three"])
    assert await stage.read("a", third, ttl=60) == (True, [])


async def test_a_history_is_kept_until_its_newest_event_expires(stage: Stage) -> None:
    await stage.append("a", "one", ttl=HOUR)
    (second,) = await stage.append("a", "two", size=1, ttl=HOUR)
    for key in (stage.keys.history("a"), stage.keys.floor("a")):
        assert await stage.redis.pexpiretime(key) == second.ms + HOUR


async def test_a_clock_that_was_set_back_loses_nothing_in_silence(stage: Stage) -> None:
    ahead = await stage.now() + HOUR
    await stage.redis.xadd(stage.keys.events, {"c": "", "e": "", "n": 0}, id=f"{ahead}-0")
    (id,) = await stage.append("a", "one", ttl=1000)
    assert id == EntryId(ahead, 1)
    assert await stage.redis.pexpiretime(stage.keys.history("a")) == ahead + 1000


async def test_a_channel_without_history_keeps_nothing_and_says_so(stage: Stage) -> None:
    first, second = await stage.append("a", "one", "two", size=0, ttl=0)
    assert await stage.read("a", first, ttl=0) == (False, [])
    assert await stage.read("a", second, ttl=0) == (True, [])
    assert await stage.read("a", EARLIEST, ttl=0) == (True, [])
    assert not await stage.redis.exists(stage.keys.history("a"), stage.keys.floor("a"))


async def test_a_history_that_was_switched_off_is_not_taken_for_a_whole_one(stage: Stage) -> None:
    (kept,) = await stage.append("a", "kept")
    await stage.append("a", "not kept", size=0, ttl=0)
    assert await stage.read("a", kept, ttl=0) == (False, [])


async def test_who_may_not_read_the_history_resumes_from_a_moment_ago_and_no_further(
    stage: Stage,
) -> None:
    (first,) = await stage.append("a", "one")
    await asyncio.sleep(0.2)
    second, last = await stage.append("a", "two", "three")
    assert await stage.read("a", second, reach_ms=100) == (True, ["three"])
    assert await stage.read("a", first, reach_ms=10_000) == (True, ["two", "three"])
    for place in (first, EntryId(last.ms - 60, 7), Position("other", second)):
        page = await stage.page("a", place, reach_ms=100)
        assert (page.recovered, page.after, page.entries) == (False, last, [])


async def test_a_reading_ends_where_it_is_enough(stage: Stage) -> None:
    ids = await stage.append("a", *(str(number) * 10 for number in range(9)))
    page = await stage.page("a", EARLIEST, count=4)
    assert (len(page.entries), page.more) == (4, True)
    page = await stage.page("a", ids[4], count=5)
    assert (len(page.entries), page.more) == (4, False)
    page = await stage.page("a", ids[0], enough=25)
    assert (len(page.entries), page.more) == (3, True)
    page = await stage.page("a", ids[0], enough=1)
    assert (len(page.entries), page.more) == (1, True)
    page = await stage.page("a", ids[-1])
    assert (len(page.entries), page.more) == (0, False)


async def test_a_reading_of_many_is_in_order_and_whole(stage: Stage) -> None:
    events = [str(number) for number in range(150)]
    await stage.append("a", *events, size=200)
    assert await stage.read("a", EARLIEST) == (True, events)
    assert await stage.read("a", EARLIEST, count=64) == (True, events[:64])


async def test_a_log_of_which_nothing_is_known_has_nothing_but_an_epoch(stage: Stage) -> None:
    page = await stage.page("a", EARLIEST)
    assert (page.last, page.recovered, page.entries) == (EntryId(0, 0), True, [])
    assert page.epoch == await stage.epoch()


async def test_every_node_reads_every_entry_from_where_it_joined(stage: Stage) -> None:
    await stage.append("a", "before")
    joined = await stage.log.join("one")
    assert joined.after == joined.last
    assert joined.number == 1
    await stage.append("a", "first", "second")
    await stage.log.join("two")
    await stage.append("b", "third")
    one = await stage.log.read("one", count=10, block_ms=1000)
    two = await stage.log.read("two", count=10, block_ms=1000)
    assert [(e.channel, e.event, e.number) for e in one] == [
        (b"a", b"first", 2),
        (b"a", b"second", 3),
        (b"b", b"third", 4),
    ]
    assert two == one[2:]
    assert await stage.log.read("one", count=10, block_ms=1) == []


async def test_a_node_goes_on_where_it_says(stage: Stage) -> None:
    await stage.log.join("one")
    ids = await stage.append("a", *"abcd")
    await stage.log.read("one", count=10, block_ms=1000)
    joined = await stage.log.join("one", ids[1])
    assert (joined.after, joined.last, joined.number) == (ids[1], ids[3], None)
    assert joined.epoch == await stage.epoch()
    entries = await stage.log.read("one", count=10, block_ms=1000)
    assert [entry.event for entry in entries] == [b"c", b"d"]
    assert (await stage.log.join("one", ids[3])).number == 4


async def test_a_log_that_is_gone_is_lost_also_for_who_waits(stage: Stage) -> None:
    joined = await stage.log.join("one")
    waiting = asyncio.ensure_future(stage.log.read("one", count=10, block_ms=5000))

    async def blocked() -> bool:
        clients: Any = await stage.redis.info("clients")
        return bool(clients["blocked_clients"])

    await eventually(blocked, within=30, reason="the reader waited at the server")
    await stage.redis.flushall()
    with pytest.raises(Lost):
        await waiting
    with pytest.raises(Lost):
        await stage.log.read("one", count=10, block_ms=1)
    assert (await stage.log.join("one")).epoch != joined.epoch


async def test_the_log_itself_is_trimmed_and_a_late_reader_can_know(any_broker: Broker) -> None:
    stage = Stage(any_broker, log_size=100)
    await stage.log.join("one")
    for _ in range(10):
        await stage.append("a", *("x" for _ in range(100)))
    assert await stage.redis.xlen(stage.keys.events) <= 300
    entries = await stage.log.read("one", count=1000, block_ms=1)
    assert entries[0].number > 1
    assert entries[-1].number == 1000


async def test_an_idle_log_gets_an_entry_for_nobody(stage: Stage) -> None:
    await stage.log.tick(HOUR)
    joined = await stage.log.join("one")
    assert joined.last > EntryId(0, 0)
    await stage.log.tick(HOUR)
    assert await stage.log.read("one", count=10, block_ms=1) == []
    await eventually(lambda: _is_older(stage, joined.last, 5), reason="time passed")
    await stage.log.tick(5)
    (entry,) = await stage.log.read("one", count=10, block_ms=1000)
    assert (entry.channel, entry.event, entry.number) == (b"", b"", 2)


async def test_the_groups_of_dead_nodes_are_cleared_away(stage: Stage) -> None:
    for node in ("alive", "dead", "gone"):
        await stage.log.join(node)
    await stage.redis.xgroup_create(stage.keys.events, "not-a-node", "$")
    assert await stage.log.reap() == []
    await stage.log.leave("gone")
    await stage.redis.delete(stage.keys.node("dead"))
    assert await stage.log.reap() == ["dead"]
    groups: Any = await stage.redis.xinfo_groups(stage.keys.events)
    assert {group["name"] for group in groups} == {b"node-alive", b"not-a-node"}
    assert 0 < await stage.redis.ttl(stage.keys.node("alive")) <= 30


# Against a model

SIZES = {"few": 3, "brief": 50, "none": 0}
TTLS = {"few": HOUR, "brief": 40, "none": 0}

channels = st.sampled_from(sorted(SIZES))
steps = st.one_of(
    st.tuples(st.just("append"), channels, st.integers(1, 5)),
    st.tuples(st.just("wait"), st.just(""), st.integers(1, 50)),
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(script=st.lists(steps, max_size=10), channel=channels, place=st.integers(0, 100))
async def test_recovered_means_that_nothing_is_missing(
    broker: Broker, script: list[tuple[str, str, int]], channel: str, place: int
) -> None:
    """The model is the list of all that was ever appended."""
    stage = Stage(broker)
    await stage.log.tick(HOUR)
    appended: list[tuple[EntryId, str, str]] = []
    for step, target, number in script:
        if step == "wait":
            await asyncio.sleep(number / 1000)
            continue
        events = [f"{len(appended) + n}" for n in range(number)]
        ids = await stage.append(target, *events, size=SIZES[target], ttl=TTLS[target])
        appended += [(id, target, event) for id, event in zip(ids, events, strict=True)]
    log: Any = await stage.redis.xrange(stage.keys.events)
    after = EntryId.parse(log[place % len(log)][0])
    page = await stage.page(channel, after, Retention(TTLS[channel]))
    found = [event.decode() for _, event in page.entries]
    since = [event for id, name, event in appended if name == channel and id > after]
    if page.recovered:
        assert found == since
    else:
        everything = [event for _, name, event in appended if name == channel]
        assert found == everything[len(everything) - len(found) :]
    young = after.ms > await stage.now() - TTLS[channel]
    if len(since) <= SIZES[channel] and young:
        assert page.recovered
