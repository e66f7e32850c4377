"""A log that lost something: positions in what is gone are told from those in what is left."""

from itertools import pairwise
from typing import Any

import pytest

from gateway.broker.broker import Broker
from gateway.broker.eventlog import Lost, Page
from gateway.broker.keys import Keys
from gateway.channels import EARLIEST, EntryId, Position
from gateway.events import Publication, Retention
from tests.servers import Broker as Log

CHANNEL = "orders"
TTL_MS = 3_600_000


class Orders:
    """One channel of a log, and the server behind it."""

    def __init__(self, log: Log) -> None:
        self.events = Broker(log.config, log.clients).events
        self.redis = log.clients.commands
        self._keys = Keys(log.config.namespace)

    async def append(self, *texts: str) -> list[EntryId]:
        ids = []
        for text in texts:
            publication = Publication(CHANNEL, text.encode(), size=100, ttl_ms=TTL_MS)
            ids += await self.events.append([publication])
        return [EntryId.parse(id) for id in ids]

    async def after(self, position: Position | str) -> Page:
        return await self.events.read_history(
            CHANNEL, position, retention=Retention(TTL_MS), count=100
        )

    async def lose(self, *ids: EntryId) -> None:
        """Lose the end of the log, as if a crash had come before it was flushed."""
        for key in (self._keys.events, self._keys.history(CHANNEL)):
            await self.redis.xdel(key, *map(str, ids))
        answer: Any = self.redis.hincrby(self._keys.log, "count", -len(ids))
        await answer


def texts(page: Page) -> list[str]:
    return [event.decode() for _, event in page.entries]


async def test_a_position_that_the_log_has_lost_is_not_recovered(any_broker: Log) -> None:
    orders = Orders(any_broker)
    _, second, third = await orders.append("1", "2", "3")
    epoch = (await orders.after(EARLIEST)).epoch
    await orders.lose(third)
    await orders.append("other 3", "4")
    lost = await orders.after(Position(epoch, third))
    kept = await orders.after(Position(epoch, second))
    assert not lost.recovered
    assert texts(lost) == ["1", "2", "other 3", "4"]
    assert kept.recovered
    assert texts(kept) == ["other 3", "4"]


async def test_the_place_where_such_a_reading_begins_is_recoverable(any_broker: Log) -> None:
    orders = Orders(any_broker)
    _, lost = await orders.append("1", "2")
    epoch = (await orders.after(EARLIEST)).epoch
    await orders.lose(lost)
    await orders.append("3")
    first = await orders.after(Position(epoch, lost))
    again = await orders.after(Position(epoch, first.after))
    assert (first.recovered, again.recovered) == (False, True)
    assert texts(first) == texts(again) == ["1", "3"]


async def test_every_entry_of_the_log_is_a_place_to_resume_from(any_broker: Log) -> None:
    orders = Orders(any_broker)
    ids = await orders.append(*map(str, range(20)))
    epoch = (await orders.after(EARLIEST)).epoch
    pages = [await orders.after(Position(epoch, id)) for id in ids]
    assert all(page.recovered for page in pages)
    assert all(texts(page) == texts(before)[1:] for before, page in pairwise(pages))


async def test_an_emptied_log_gives_out_positions_of_a_new_epoch(any_broker: Log) -> None:
    orders = Orders(any_broker)
    (last,) = await orders.append("1")
    epoch = (await orders.after(EARLIEST)).epoch
    await orders.redis.flushall()
    page = await orders.after(Position(epoch, last))
    assert not page.recovered
    assert page.epoch not in ("", epoch)
    await orders.append("2")
    assert (await orders.after(EARLIEST)).epoch == page.epoch


async def test_who_leaves_or_clears_up_an_emptied_log_is_told_that_it_is_gone(
    any_broker: Log,
) -> None:
    orders = Orders(any_broker)
    await orders.events.join("node")
    await orders.redis.flushall()
    with pytest.raises(Lost):
        await orders.events.reap()
    with pytest.raises(Lost):
        await orders.events.leave("node")
    with pytest.raises(Lost):
        await orders.events.read("node", count=1, block_ms=1)
