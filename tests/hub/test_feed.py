"""The feed over a real server: every entry once and in order, whatever becomes of the server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from redis.exceptions import RedisError

from gateway.broker.broker import Broker as GatewayBroker
from gateway.broker.keys import Keys
from gateway.channels import EntryId
from gateway.errors import CloseCode
from gateway.events import Publication, Retention
from gateway.hub import feed as feed_module
from gateway.hub.feed import CHUNK, Feed, Notices
from gateway.hub.history import History
from gateway.hub.hub import SLOTS, Hub
from tests.hub.peers import Lines, Peer
from tests.servers import Broker, eventually


class Events:
    """An encoding that shows the events alone."""

    def event(self, position: bytes, event: bytes) -> bytes:
        return event + b" "

    def heartbeat(self, position: bytes | None) -> bytes:
        return b"beat "


class Stage:
    """A feed between a real log and a hub."""

    def __init__(
        self, broker: Broker, *, heartbeat: float = 60, notices: Notices | None = None
    ) -> None:
        self.broker = GatewayBroker(broker.config, broker.clients)
        self.log = self.broker.events
        self.redis = broker.clients.commands
        self.keys = Keys(broker.config.namespace)
        self.hub = Hub(History(self.log, lambda channel: Retention(1000)), write_buffer=10 << 20)
        self.feed = Feed(
            self.log, self.hub, "one", heartbeat=heartbeat, window_ms=0, notices=notices
        )

    @asynccontextmanager
    async def feeding(self) -> AsyncIterator[None]:
        """Run the feed for as long as the block lasts."""
        await self.feed.start()
        running = asyncio.create_task(self.feed.run())
        try:
            yield
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running

    def peer(self) -> Peer:
        peer = Peer(self.hub, Events())
        peer.subscribe("a")
        return peer

    async def append(self, *events: object) -> None:
        await self.log.append([Publication("a", str(each).encode(), 0, 0) for each in events])

    async def hears(self, peer: Peer, *events: object) -> None:
        """Wait until a peer has heard exactly these events since it subscribed."""
        expected = [str(each) for each in events]
        await eventually(
            lambda: len(peer.heard) > len(expected) or peer.goodbyes,
            within=30,
            reason=f"{len(expected)} events were heard",
        )
        assert peer.heard[1:] == expected
        assert peer.goodbyes == []

    async def is_dismissed(self, peer: Peer) -> None:
        await eventually(lambda: peer.goodbyes, within=30, reason="the peer had to resume")
        assert peer.goodbyes == [CloseCode.POSITION_LOST]

    async def cut_connections(self) -> None:
        """Have the server cut all connections, this one's too."""
        await self.redis.client_kill_filter(_type="normal", skipme=False)


@pytest.fixture
def stage(broker: Broker) -> Stage:
    """A feed over an empty log on the embedded Valkey."""
    return Stage(broker)


async def test_every_entry_is_dispatched_once_and_in_order(stage: Stage) -> None:
    await stage.append("before")
    async with stage.feeding():
        peer = stage.peer()
        await stage.append(*range(50))
        for number in range(50, 80):
            await stage.append(number)
        await stage.hears(peer, *range(80))
        assert stage.feed.connected


async def test_who_subscribes_to_a_new_log_gets_a_position_in_it(stage: Stage) -> None:
    async with stage.feeding():
        assert stage.hub.position > EntryId(0, 0)
        assert stage.hub.epoch


async def test_connections_that_are_cut_lose_nothing(stage: Stage) -> None:
    async with stage.feeding():
        peer = stage.peer()
        for number in range(0, 60, 2):
            await stage.append(number)
            if number % 20 == 0:
                await stage.cut_connections()
            await eventually_appended(stage, number + 1)
        await stage.hears(peer, *range(60))


async def eventually_appended(stage: Stage, number: int) -> None:
    """Append an event over a connection that may turn out to have been cut."""

    async def answered() -> bool:
        with suppress(RedisError):
            return bool(await stage.redis.ping())
        return False

    await eventually(answered, reason="the connection was opened anew")
    await stage.append(number)


async def test_a_group_that_was_cleared_away_is_taken_up_again(stage: Stage) -> None:
    async with stage.feeding():
        peer = stage.peer()
        await stage.append(1)
        await stage.hears(peer, 1)
        await stage.redis.xgroup_destroy(stage.keys.events, "node-one")
        await stage.append(2, 3)
        await stage.hears(peer, 1, 2, 3)


async def test_a_log_that_was_emptied_begins_anew(stage: Stage) -> None:
    async with stage.feeding():
        peer = stage.peer()
        await stage.append(1)
        await stage.hears(peer, 1)
        epoch = stage.hub.epoch
        await stage.redis.flushall()
        await stage.is_dismissed(peer)
        assert stage.hub.epoch != epoch
        again = stage.peer()
        await stage.append(2)
        await stage.hears(again, 2)


async def test_nobody_is_moved_to_a_log_that_was_replaced_before_it_is_sent_away(
    broker: Broker,
) -> None:
    class Beating(Heard):
        async def read(self) -> None:
            for slot in range(SLOTS):  # what the timer may do in whatever moment
                hub.beat(slot)

    stage = Stage(broker, notices=Beating())
    hub = stage.hub
    async with stage.feeding():
        peer = Peer(stage.hub, Lines())
        peer.subscribe("a")
        await stage.redis.flushall()
        await stage.is_dismissed(peer)
    assert not [text for text in peer.heard if text.startswith("beat@")]


@pytest.mark.parametrize("others", [0, 1, 2, 3], ids=lambda others: f"{others}-newer")
async def test_a_log_that_lost_its_end_begins_anew(stage: Stage, others: int) -> None:
    """As after a crash of a server that had not written its last second to the disk."""
    async with stage.feeding():
        peer = stage.peer()
        await stage.append(1)
        await stage.hears(peer, 1)
        saved: list[tuple[str, Any]] = [
            (key, await stage.redis.dump(key)) for key in (stage.keys.log, stage.keys.events)
        ]
        await stage.append(2, 3)
        await stage.hears(peer, 1, 2, 3)
        restore = stage.redis.pipeline(transaction=True)
        for key, value in saved:
            restore.restore(key, 0, value, replace=True)
        for _ in range(others):
            restore.eval(APPEND, 2, stage.keys.log, stage.keys.events)
        await restore.execute()
        await stage.append("new")
        await stage.is_dismissed(peer)
        again = stage.peer()
        await stage.append("newer")
        await eventually(
            lambda: again.heard[-1] == "newer", within=30, reason="the newest was heard"
        )


APPEND = """
local n = redis.call('HINCRBY', KEYS[1], 'count', 1)
return redis.call('XADD', KEYS[2], '*', 'c', 'a', 'e', 'other', 'n', n)
"""


async def test_a_log_that_goes_on_by_a_slower_clock_begins_anew(stage: Stage) -> None:
    """As after the promotion of a replica: new entries have numbers and times of lost ones."""
    async with stage.feeding():
        peer = stage.peer()
        await stage.append(1)
        await stage.hears(peer, 1)
        log, events = stage.keys.log, stage.keys.events
        saved: list[tuple[str, Any]] = [(key, await stage.redis.dump(key)) for key in (log, events)]
        ms, _, seq = str(stage.hub.position).partition("-")
        await stage.append(2)
        await stage.hears(peer, 1, 2)
        replace = stage.redis.pipeline(transaction=True)
        for key, value in saved:
            replace.restore(key, 0, value, replace=True)
        number: Any = int((await stage.redis.hget(log, "count")) or 0)
        replace.hset(log, "count", number)
        replace.xadd(events, {"c": "a", "e": "other", "n": number}, id=f"{ms}-{int(seq) + 1}")
        replace.eval(APPEND, 2, log, events)
        replace.client_kill_filter(_type="normal", skipme=True)
        await replace.execute()
        await stage.is_dismissed(peer)
        heard = [each for each in peer.heard if each != "beat"]
        assert heard[1:] == ["1", "2"]


async def test_a_gap_in_the_log_is_noticed_and_told(stage: Stage) -> None:
    async with stage.feeding():
        peer = stage.peer()
        await stage.append(1)
        await stage.hears(peer, 1)
        skip = stage.redis.pipeline(transaction=True)
        skip.hincrby(stage.keys.log, "count", 1)  # as if one were trimmed before it was read
        await skip.execute()
        await stage.append(3)
        await stage.is_dismissed(peer)
        assert peer.heard[1:] == ["1"]
        again = stage.peer()
        await stage.append(4)
        await stage.hears(again, 4)


async def test_large_batches_are_dispatched_in_pieces(stage: Stage) -> None:
    large = "x" * 100_000
    async with stage.feeding():
        peer = stage.peer()
        await stage.append(*(f"{number}{large}" for number in range(9)))
        await stage.hears(peer, *(f"{number}{large}" for number in range(9)))
        assert max(map(len, peer.written)) <= CHUNK + len(large)


async def test_every_connection_hears_the_heart_beat(broker: Broker) -> None:
    stage = Stage(broker, heartbeat=0.2)
    async with stage.feeding():
        peers = [Peer(stage.hub, Lines()) for _ in range(30)]
        await eventually(
            lambda: all(peer.heard for peer in peers), within=30, reason="all heard a heartbeat"
        )


async def test_positions_stay_young_while_nothing_happens(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "NODE_TTL", 0.1)
    monkeypatch.setattr(feed_module, "IDLE_MS", 20)
    async with stage.feeding():
        began = stage.hub.position
        await eventually(lambda: stage.hub.position > began, within=30, reason="it moved on")


async def test_a_feed_that_is_told_to_end_ends_in_whatever_turn(stage: Stage) -> None:
    for turns in range(60):
        async with stage.feeding():
            for _ in range(turns):
                await asyncio.sleep(0)
            if turns % 2:
                await stage.append(turns)


async def test_who_leaves_gives_its_place_back(stage: Stage) -> None:
    async with stage.feeding():
        groups: Any = await stage.redis.xinfo_groups(stage.keys.events)
        assert [group["name"] for group in groups] == [b"node-one"]
    await stage.feed.leave()
    assert await stage.redis.xinfo_groups(stage.keys.events) == []
    assert not await stage.redis.exists(stage.keys.node("one"))


class Heard:
    """What is told between the events."""

    channel = b"!test"

    def __init__(self) -> None:
        self.notices: list[bytes] = []
        self.reads = 0

    def hear(self, notice: bytes) -> None:
        self.notices.append(notice)

    async def read(self) -> None:
        self.reads += 1


async def test_notices_are_heard_in_order_and_read_anew_after_a_gap(broker: Broker) -> None:
    heard = Heard()
    stage = Stage(broker, notices=heard)
    async with stage.feeding():
        assert heard.reads == 1
        peer = stage.peer()
        await stage.log.append(
            [Publication("!test", b"one", 0, 0), Publication("!test", b"2", 0, 0)]
        )
        await stage.append(1)
        await stage.hears(peer, 1)
        assert heard.notices == [b"one", b"2"]
        await stage.redis.hincrby(stage.keys.log, "count", 5)
        await stage.append(2)
        await eventually(lambda: heard.reads == 2, within=30, reason="the notices were read anew")
        await stage.redis.xgroup_destroy(stage.keys.events, "node-one")
        await eventually(lambda: heard.reads == 3, within=30, reason="the feed joined again")
