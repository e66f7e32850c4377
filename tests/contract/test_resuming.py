"""Coming back with a position: every event after it once and in order, or `recovered: false`."""

from gateway.channels import EntryId, Position
from gateway.errors import CloseCode
from tests.contract.serving import Serving
from tests.contract.subscribers import Kind


async def test_who_comes_back_gets_what_it_missed(gateway: Serving, kind: Kind) -> None:
    async with kind.open(gateway.port, "orders") as first:
        await first.stands()
        await gateway.publish("orders", 1)
        await first.has(1)
    await gateway.publish("orders", 2, 3)
    async with kind.open(gateway.port, "orders", after=first.position) as second:
        await second.has(2)
        await gateway.publish("orders", 4)
        await second.has(3)
    assert second.recovered == {"orders": True}
    assert second.standings["orders"].position == first.position
    assert second.data == [2, 3, 4]
    second.check_order()


async def test_one_position_serves_all_channels_of_a_connection(
    gateway: Serving, kind: Kind
) -> None:
    channels = ("orders", "orders:c-1", "orders:c-2")
    async with kind.open(gateway.port, *channels) as first:
        await first.stands(3)
        for number in range(12):
            await gateway.publish(channels[number % 3], number)
        await first.has(12)
    for number in range(12, 72):
        await gateway.publish(channels[number * 7 % 3], number)
    middle = first.delivered[4].position
    async with kind.open(gateway.port, *channels, after=middle) as second:
        await second.has(67)
    assert second.data == list(range(5, 72))
    assert second.recovered == dict.fromkeys(channels, True)
    second.check_order()


async def test_the_subscribed_position_is_one_to_come_back_with(
    gateway: Serving, kind: Kind
) -> None:
    async with kind.open(gateway.port, "orders", "orders:c-1") as first:
        await first.stands(2)
    await gateway.publish("orders", 1)
    await gateway.publish("orders:c-1", 2)
    async with kind.open(gateway.port, "orders", "orders:c-1", after=first.position) as second:
        await second.has(2)
    assert second.recovered == {"orders": True, "orders:c-1": True}
    assert second.data == [1, 2]


async def test_the_earliest_is_all_that_is_retained(gateway: Serving, kind: Kind) -> None:
    await gateway.publish("last:5", *range(8))
    async with kind.open(gateway.port, "last:5", after="earliest") as first:
        await first.stands()
        await first.has(5)
    assert first.data == [3, 4, 5, 6, 7]
    assert first.recovered == {"last:5": True}
    began = first.standings["last:5"].position
    async with kind.open(gateway.port, "last:5", after=began) as second:
        await second.has(5)
    assert second.recovered == {"last:5": True}
    assert second.data == first.data


async def test_the_earliest_of_an_empty_channel_can_be_come_back_to(
    gateway: Serving, kind: Kind
) -> None:
    async with kind.open(gateway.port, "brief", after="earliest") as first:
        await first.stands()
    await gateway.publish("orders", "elsewhere")
    async with kind.open(gateway.port, "brief", after=first.position) as second:
        await gateway.publish("brief", 1)
        await second.has(1)
    assert first.recovered == second.recovered == {"brief": True}


async def test_a_trimmed_history_says_so_and_gives_the_rest(gateway: Serving, kind: Kind) -> None:
    async with kind.open(gateway.port, "last:5", "orders") as first:
        await first.stands(2)
        await gateway.publish("last:5", 0)
        await first.has(1)
    await gateway.publish("last:5", *range(1, 7))
    await gateway.publish("orders", "kept")
    async with kind.open(gateway.port, "last:5", "orders", after=first.position) as second:
        await second.has(6)
        await gateway.publish("last:5", "live")
        await second.has(7)
    assert second.recovered == {"last:5": False, "orders": True}
    assert second.data == [2, 3, 4, 5, 6, "kept", "live"]
    second.check_order()


async def test_nothing_is_missing_up_to_the_very_floor(gateway: Serving, kind: Kind) -> None:
    async with kind.open(gateway.port, "last:5") as first:
        await first.stands()
        await gateway.publish("last:5", *range(10))
        await first.has(10)
    for number, recovered in ((3, False), (4, True), (5, True)):
        after = first.delivered[number].position
        async with kind.open(gateway.port, "last:5", after=after) as second:
            await second.has(5 if number < 5 else 4)
        assert second.recovered == {"last:5": recovered}
        assert second.data == list(range(max(number + 1, 5), 10))


async def test_an_unknown_epoch_says_so_and_gives_what_there_is(
    gateway: Serving, kind: Kind
) -> None:
    await gateway.publish("orders", 1, 2)
    hub = gateway.gateway.hub
    await gateway.settled()
    for position in (f"other-{hub.position}", f"{hub.epoch}-{hub.position.ms + 1}-0"):
        async with kind.open(gateway.port, "orders", after=position) as subscriber:
            await subscriber.has(2)
        assert subscriber.recovered == {"orders": False}
        assert subscriber.data == [1, 2]


async def test_a_history_that_expired_says_so(gateway: Serving, kind: Kind) -> None:
    async with kind.open(gateway.port, "brief") as first:
        await first.stands()
        await gateway.publish("brief", 1, 2)
        await first.has(2)
    await gateway.history_is_gone("brief")
    async with kind.open(gateway.port, "brief", after=first.delivered[0].position) as second:
        await second.stands()
        await gateway.publish("brief", 3)
        await second.has(1)
    assert second.recovered == {"brief": False}
    assert second.data == [3]


async def test_events_that_expired_one_by_one_say_so(gateway: Serving, kind: Kind) -> None:
    async with kind.open(gateway.port, "brief") as first:
        await first.stands()
        await gateway.publish("brief", 0, 1)
        await first.has(2)
    expired = Position.parse(first.position).id
    while await gateway.floor("brief") < expired:  # what is appended meanwhile keeps it alive
        await gateway.publish("brief", "later")
    async with kind.open(gateway.port, "brief", after=first.delivered[0].position) as second:
        await second.has(1)
    assert second.recovered == {"brief": False}
    assert set(second.data) == {"later"}


async def test_a_channel_without_history_cannot_be_resumed_but_says_so(
    gateway: Serving, kind: Kind
) -> None:
    async with kind.open(gateway.port, "fleeting") as first:
        await first.stands()
        await gateway.publish("fleeting", 1)
        await first.has(1)
    async with kind.open(gateway.port, "fleeting", after=first.position) as second:
        await second.stands()
    await gateway.publish("fleeting", 2)
    async with kind.open(gateway.port, "fleeting", after=first.position) as third:
        await third.stands()
        await gateway.publish("fleeting", 3)
        await third.has(1)
    assert second.recovered == {"fleeting": True}
    assert third.recovered == {"fleeting": False}
    assert third.data == [3]


async def test_a_log_that_is_replaced_sends_everybody_to_resume(
    gateway: Serving, kind: Kind
) -> None:
    async with kind.open(gateway.port, "orders") as first:
        await first.stands()
        await gateway.publish("orders", 1)
        await first.has(1)
        await gateway.begin_anew()
        goodbye = await first.end()
    assert goodbye.code == CloseCode.POSITION_LOST
    await gateway.publish("orders", "new")
    async with kind.open(gateway.port, "orders", after=first.position) as second:
        await second.has(1)
    assert second.recovered == {"orders": False}
    assert second.data == ["new"]
    assert Position.parse(second.position).epoch != Position.parse(first.position).epoch


async def test_a_long_past_comes_whole_and_goes_over_into_the_present(
    gateway: Serving, kind: Kind
) -> None:
    await gateway.publish("orders:c-1", *range(1300))
    await gateway.publish("orders", *range(1300, 1400))
    async with kind.open(gateway.port, "orders", "orders:c-1", after="earliest") as subscriber:
        await subscriber.has(400)
        await gateway.publish("orders", *range(1400, 1500))
        await subscriber.has(1500)
    assert subscriber.data == list(range(1500))
    subscriber.check_order()


async def test_large_events_are_replayed_bit_by_bit(gateway: Serving, kind: Kind) -> None:
    large = "x" * 100_000
    for number in range(12):
        await gateway.publish("orders", f"{number}{large}")
    await gateway.settled()
    async with kind.open(gateway.port, "orders", after="earliest") as subscriber:
        await subscriber.has(12)
    assert [each.removesuffix(large) for each in subscriber.data] == [str(n) for n in range(12)]


async def test_a_channel_that_is_trimmed_does_not_break_the_replay_of_another(
    gateway: Serving, kind: Kind
) -> None:
    async with kind.open(gateway.port, "orders", "last:5") as first:
        await first.stands(2)
    for number in range(0, 1200, 60):
        await gateway.publish("orders", *range(number, number + 60))
        await gateway.publish("last:5", number, number)
    async with kind.open(gateway.port, "orders", "last:5", after=first.position) as second:
        await second.has(1205)
    assert second.recovered == {"orders": True, "last:5": False}
    assert second.of("orders") == list(range(1200))
    assert second.of("last:5") == [1020, 1080, 1080, 1140, 1140]
    second.check_order()


async def test_who_comes_back_to_an_idle_gateway_missed_nothing(
    gateway: Serving, kind: Kind
) -> None:
    async with kind.open(gateway.port, "orders", "brief") as first:
        await first.stands(2)
    assert Position.parse(first.position).id > EntryId(0, 0)
    await gateway.publish("orders", 1)
    async with kind.open(gateway.port, "orders", after=first.position) as second:
        await second.has(1)
    assert second.recovered == {"orders": True}
    assert second.data == [1]
