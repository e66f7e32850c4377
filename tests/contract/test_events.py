"""Events as they come: what every subscriber is promised, over either transport, of either kind."""

from gateway.settings import Seconds
from tests.contract.serving import Serving, Transports, serving
from tests.contract.subscribers import Kind, Moved, Subscribed
from tests.servers import RunningServer


async def test_the_answer_comes_before_the_first_event(gateway: Serving, kind: Kind) -> None:
    await gateway.publish("orders", 1)
    async with kind.open(gateway.port, "orders", after="earliest") as subscriber:
        await subscriber.has(1)
    assert isinstance(subscriber.received[0], Subscribed)
    assert subscriber.data == [1]


async def test_live_events_come_in_the_order_of_the_log(gateway: Serving, kind: Kind) -> None:
    async with kind.open(gateway.port, "orders", "orders:c-1") as subscriber:
        await subscriber.stands(2)
        await gateway.publish("orders", *range(40))
        for number in range(40, 60, 2):
            await gateway.publish("orders:c-1", number)
            await gateway.publish("orders", number + 1)
        await subscriber.has(60)
    log = await gateway.log()
    assert [(each.channel, each.event["data"]) for each in subscriber.delivered] == [
        (each.channel, each.event["data"]) for each in log
    ]
    assert subscriber.data == list(range(60))
    subscriber.check_order()


async def test_an_event_comes_as_it_is_in_the_log(gateway: Serving, kind: Kind) -> None:
    strange = {"text": 'a "quoted"\r\nid: 1\n\ndata: x', "more": ["ü€😀\u2028", None, 1.5]}
    async with kind.open(gateway.port, "orders") as subscriber:
        await subscriber.stands()
        await gateway.publish("orders", strange)
        await subscriber.has(1)
    (logged,) = await gateway.log()
    (delivered,) = subscriber.delivered
    assert delivered.event == logged.event
    assert delivered.event["data"] == strange
    assert delivered.event["channel"] == "orders"
    assert delivered.position == f"{gateway.gateway.hub.epoch}-{logged.id}"


async def test_a_subscriber_hears_its_own_channels_only(gateway: Serving, kind: Kind) -> None:
    async with kind.open(gateway.port, "orders:c-1", "orders:c-3") as subscriber:
        await subscriber.stands(2)
        for number, channel in enumerate(["orders:c-2", "orders", "orders:c-1", "orders:c-10"]):
            await gateway.publish(channel, number)
        await gateway.publish("orders:c-3", "last")
        await subscriber.has(2)
    assert subscriber.data == [2, "last"]


async def test_a_channel_named_twice_is_one_subscription(gateway: Serving, kind: Kind) -> None:
    async with kind.open(gateway.port, "orders", "orders") as subscriber:
        await subscriber.stands()
        await gateway.publish("orders", 1, 2)
        await subscriber.has(2)
    assert subscriber.data == [1, 2]
    assert len([each for each in subscriber.received if isinstance(each, Subscribed)]) == 1


async def test_who_asks_for_nothing_of_the_past_begins_now(gateway: Serving, kind: Kind) -> None:
    await gateway.publish("orders", "past")
    await gateway.settled()
    async with kind.open(gateway.port, "orders") as subscriber:
        await subscriber.stands()
        await gateway.publish("orders", "present")
        await subscriber.has(1)
    assert subscriber.data == ["present"]
    assert subscriber.recovered == {"orders": True}


async def test_a_heartbeat_moves_the_position_of_who_hears_nothing(
    log: RunningServer, transports: Transports, kind: Kind
) -> None:
    async with serving(log, transports, heartbeat=Seconds(0.5)) as gateway:
        async with kind.open(gateway.port, "orders") as subscriber:
            await subscriber.stands()
            began = subscriber.position
            await gateway.publish("fleeting", "not for it")
            await gateway.settled()
            await subscriber.until(
                lambda: subscriber.position != began, "a heartbeat told the position"
            )
        assert isinstance(subscriber.received[-1], Moved)
        assert subscriber.delivered == []
        async with kind.open(gateway.port, "orders", after=subscriber.position) as again:
            await again.stands()
        assert again.recovered == {"orders": True}


async def test_whoever_goes_away_is_forgotten(gateway: Serving, kind: Kind) -> None:
    async with kind.open(gateway.port, "orders", "orders:c-1") as subscriber:
        await subscriber.stands(2)
        subscriber.abort()
        await gateway.empty()
    await gateway.publish("orders", 1)
    await gateway.settled()
