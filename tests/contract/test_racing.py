"""Subscribers come and go at any moment while events pour in: nothing is lost, nothing is twice."""

import asyncio
from dataclasses import dataclass, field
from functools import partial
from random import Random

from gateway.channels import EARLIEST, EntryId, Position
from tests.contract.serving import Logged, Serving
from tests.contract.subscribers import Delivered, Kind, Subscriber

CHANNELS = ("orders", "orders:c-1", "orders:c-2")
EVENTS = 600
READERS = 12
END = "end"
"""The data of the last event of each channel."""


@dataclass
class Reader:
    """One who follows some channels to their ends, with interruptions."""

    channels: tuple[str, ...]
    begin: EntryId | None = None
    """After which it follows them; None until it knows."""
    heard: list[Delivered] = field(default_factory=list)
    stays: int = 0

    def came(self, subscriber: Subscriber) -> None:
        """Note where it began, the first time."""
        assert set(subscriber.recovered.values()) == {True}
        self.stays += 1
        if self.begin is None:
            positions = [each.position for each in subscriber.standings.values()]
            self.begin = min(Position.parse(each).id for each in positions)

    def is_through(self, heard: list[Delivered]) -> bool:
        """Whether it has heard the ends of its channels, with these events."""
        ends = {each.channel for each in self.heard + heard if each.event["data"] == END}
        return ends == set(self.channels)

    def has_enough(self, heard: list[Delivered], count: int) -> bool:
        """Whether it goes away now: after so many events, or at the end."""
        return len(heard) >= count or self.is_through(heard)

    def check(self, log: list[Logged]) -> None:
        """Check it against the log: every event after the beginning, once and in order."""
        begin = self.begin
        assert begin is not None
        expected = [each for each in log if each.channel in self.channels and each.id > begin]
        assert [Position.parse(each.position).id for each in self.heard] == [
            each.id for each in expected
        ]
        assert [each.event for each in self.heard] == [each.event for each in expected]


async def pour(gateway: Serving, random: Random) -> None:
    """Publish to all channels, now one event at a time and now many."""
    number = 0
    while number < EVENTS:
        count = random.choice((1, 1, 2, 5, 40))
        await gateway.publish(random.choice(CHANNELS), *range(number, number + count))
        number += count
        for _ in range(random.randrange(4)):
            await asyncio.sleep(0)
    for channel in CHANNELS:
        await gateway.publish(channel, END)


async def follow(gateway: Serving, kind: Kind, reader: Reader, random: Random) -> None:
    """Come and go while events pour in, until all ends were heard."""
    after = random.choice((None, EARLIEST))
    while not reader.is_through([]):
        async with kind.open(gateway.port, *reader.channels, after=after) as subscriber:
            await subscriber.stands(len(reader.channels))
            reader.came(subscriber)
            enough = partial(reader.has_enough, subscriber.delivered, random.randint(1, 120))
            await subscriber.until(enough, "enough was heard")
            subscriber.check_order()
            reader.heard += subscriber.delivered
            after = reader.heard[-1].position
            if random.random() < 0.3:
                subscriber.abort()


async def test_nothing_is_lost_or_twice_however_subscribers_come_and_go(
    gateway: Serving, kind: Kind
) -> None:
    random = Random(20)
    readers = [Reader(tuple(random.sample(CHANNELS, random.randint(1, 3)))) for _ in range(READERS)]
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(pour(gateway, random))
        for reader in readers:
            tasks.create_task(follow(gateway, kind, reader, random))
    log = await gateway.log()
    for reader in readers:
        reader.check(log)
    assert sum(reader.stays for reader in readers) > 2 * READERS
