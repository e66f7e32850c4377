"""The roll: what each process holds counts for all, for as long as the process lives."""

from gateway.broker.keys import Keys
from gateway.broker.roll import TTL_MS, Attendance, Roll, Wish
from gateway.broker.scripts import Pipeline
from tests.servers import Broker


def roll(broker: Broker, node: str) -> Roll:
    return Roll(Pipeline(broker.clients.commands), Keys(broker.config.namespace), node)


def wish(held: int, name: str = "x", most: int = 3) -> Wish:
    return Wish(name, held, most)


async def test_all_processes_together_hold_no_more_than_may_be(any_broker: Broker) -> None:
    one, other = roll(any_broker, "1"), roll(any_broker, "2")
    assert await one.occupy([wish(1)]) is None
    assert await one.occupy([wish(2)]) is None
    assert await other.occupy([wish(1)]) is None
    assert await other.occupy([wish(2)]) == 0
    assert await one.occupy([wish(3)]) == 0
    await one.hold({"x": 1})
    assert await other.occupy([wish(2)]) is None


async def test_all_that_is_wanted_is_had_or_nothing(broker: Broker) -> None:
    one, other = roll(broker, "1"), roll(broker, "2")
    await other.occupy([wish(3, "full")])
    assert await one.occupy([wish(1), wish(1, "full")]) == 1
    assert await other.occupy([wish(3)]) is None


async def test_what_a_process_held_dies_with_it(broker: Broker) -> None:
    one, other = roll(broker, "1"), roll(broker, "2")
    keys = Keys(broker.config.namespace)
    await one.attend()
    await one.occupy([wish(3)])
    assert 0 < await broker.clients.commands.pttl(keys.held_by("1")) <= TTL_MS
    await broker.clients.commands.delete(keys.held_by("1"))  # as when its time is over
    assert await other.occupy([wish(3)]) is None
    assert await other.attend() == Attendance(known=False, processes=1)


async def test_a_process_learns_whether_all_that_it_holds_is_known(broker: Broker) -> None:
    one = roll(broker, "1")
    assert await one.attend() == Attendance(known=False, processes=1)
    await one.hold({"x": 2})
    assert await one.attend() == Attendance(known=True, processes=1)
    await broker.clients.commands.flushall()
    await one.occupy([wish(1, "y")])  # part of the truth is not all of it
    assert await one.attend() == Attendance(known=False, processes=1)


async def test_who_leaves_holds_nothing(broker: Broker) -> None:
    one, other = roll(broker, "1"), roll(broker, "2")
    await one.attend()
    await one.occupy([wish(3)])
    assert await other.attend() == Attendance(known=False, processes=2)
    await one.leave()
    assert await other.occupy([wish(3)]) is None
    assert await other.attend() == Attendance(known=True, processes=1)


async def test_nothing_is_kept_for_ever(broker: Broker) -> None:
    one = roll(broker, "1")
    await one.attend()
    await one.occupy([wish(1)])
    redis = broker.clients.commands
    keys = [key async for key in redis.scan_iter()]
    assert len(keys) == 2
    assert [await redis.pttl(key) > 0 for key in keys] == [True, True]
