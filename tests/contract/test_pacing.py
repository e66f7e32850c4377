"""Subscribers that do not hear everything at once: at most so often, or only the latest."""

import asyncio
import json

import pytest
from websockets.asyncio.client import connect

from gateway.settings import Seconds
from tests.contract.serving import Serving, Transports, serving
from tests.contract.subscribers import Kind, Moved, Subscribed
from tests.servers import RunningServer, eventually

INTERVAL = 0.5
"""Seconds between deliveries on the channels `calm` and `board`."""


def item(name: str, number: int) -> dict[str, object]:
    return {"item": name, "number": number}


async def test_deliveries_keep_their_distance_and_lose_nothing(
    gateway: Serving, kind: Kind
) -> None:
    async with kind.open(gateway.port, "calm") as subscriber:
        await subscriber.stands()
        began = asyncio.get_running_loop().time()
        await gateway.publish("calm", 0)
        await subscriber.has(1)
        for number in range(1, 11):
            await gateway.publish("calm", number)
        await subscriber.has(11)
        assert asyncio.get_running_loop().time() - began >= INTERVAL
    assert subscriber.data == list(range(11))
    subscriber.check_order()


async def test_a_subscriber_is_told_how_it_hears(gateway: Serving, kind: Kind) -> None:
    async with kind.open(gateway.port, "calm", "board", "prices", "orders") as subscriber:
        await subscriber.stands(4)
    told = {name: (each.max_rate, each.conflate) for name, each in subscriber.standings.items()}
    assert told == {
        "calm": (2, False),
        "board": (2, True),
        "prices": (None, True),
        "orders": (None, False),
    }


async def test_of_what_waits_only_the_latest_of_each_key_is_sent(
    gateway: Serving, kind: Kind
) -> None:
    async with kind.open(gateway.port, "board") as subscriber:
        await subscriber.stands()
        await gateway.publish("board", item("a", 1))
        await subscriber.has(1)
        await gateway.publish("board", item("b", 2), item("a", 3), item("b", 4), item("c", 5))
        await subscriber.has(4)
        await gateway.publish("board", item("a", 6))
        await subscriber.has(5)
    assert subscriber.data == [
        *(item("a", 1), item("a", 3), item("b", 4), item("c", 5)),
        item("a", 6),
    ]
    subscriber.check_order()


async def test_who_breaks_off_while_something_waits_misses_nothing(
    gateway: Serving, kind: Kind
) -> None:
    async with kind.open(gateway.port, "board", "orders") as subscriber:
        await subscriber.stands(2)
        await gateway.publish("board", item("a", 1))
        await subscriber.has(1)
        await gateway.publish("board", item("a", 2))
        await gateway.publish("orders", "x")
        await gateway.settled()
        subscriber.abort()
    received = subscriber.data
    async with kind.open(gateway.port, "board", "orders", after=subscriber.position) as again:
        await again.has(3 - len(received))
    assert [*received, *again.data] == [item("a", 1), item("a", 2), "x"]
    assert again.recovered == {"board": True, "orders": True}


async def test_a_heartbeat_tells_no_position_beyond_what_waits(
    log: RunningServer, transports: Transports, kind: Kind
) -> None:
    async with (
        serving(log, transports, heartbeat=Seconds(0.25)) as gateway,
        kind.open(gateway.port, "board") as subscriber,
    ):
        await subscriber.stands()
        for number in range(4):
            await gateway.publish("board", item("a", number))
            await subscriber.has(number + 1)
            await subscriber.until(
                lambda: isinstance(subscriber.received[-1], Moved), "a heartbeat came"
            )
    known = ""
    for each in subscriber.received:
        if isinstance(each, Moved) and each.position:
            assert each.position == known
        elif isinstance(each, Subscribed | type(subscriber.delivered[0])):
            known = each.position


async def test_a_lagging_subscriber_of_a_conflated_channel_hears_the_latest_and_stays(
    log: RunningServer, transports: Transports, kind: Kind
) -> None:
    bulk = "x" * 4000
    async with (
        serving(log, transports, tight=True, write_buffer=256 << 10) as gateway,
        kind.open(gateway.port, "prices", narrow=True) as subscriber,
    ):
        await subscriber.stands()
        for number in range(300):  # many times what may wait for it
            await gateway.publish("prices", item("a", number) | {"bulk": bulk})
        await gateway.settled()
        await eventually(lambda: len(gateway.gateway.hub) == 1, reason="it is still connected")
        await subscriber.until(
            lambda: subscriber.delivered and subscriber.data[-1]["number"] == 299,
            "the latest price came",
        )
        assert len(subscriber.data) < 300
        subscriber.check_order()
        await gateway.publish("prices", item("a", 300))
        await subscriber.until(
            lambda: subscriber.data[-1]["number"] == 300, "it hears what comes next"
        )


async def test_a_lagging_subscriber_is_closed_when_even_the_latest_are_too_much(
    log: RunningServer, transports: Transports, kind: Kind
) -> None:
    bulk = "x" * 4000
    async with serving(log, transports, tight=True, write_buffer=256 << 10) as gateway:
        async with kind.open(gateway.port, "prices", narrow=True) as subscriber:
            await subscriber.stands()
            for number in range(400):
                await gateway.publish("prices", item(str(number), number) | {"bulk": bulk})
            await gateway.empty()
            assert (await subscriber.end()).code == 4001
        async with kind.open(gateway.port, "prices", after=subscriber.position) as again:
            await again.has(400 - len(subscriber.data))
    assert [each["number"] for each in subscriber.data + again.data] == list(range(400))


async def test_a_websocket_subscription_can_ask_for_a_pace_and_end(gateway: Serving) -> None:
    async with connect(f"ws://127.0.0.1:{gateway.port}/ws", proxy=None) as socket:

        async def ask(**frame: object) -> dict[str, object]:
            await socket.send(json.dumps(frame))
            answer: dict[str, object] = json.loads(await socket.recv())
            return answer

        answer = await ask(subscribe={"channel": "orders", "max_rate": 4})
        assert answer["subscribed"]["max_rate"] == 4  # type: ignore[index]
        answer = await ask(subscribe={"channel": "calm", "max_rate": 50})
        assert answer["subscribed"]["max_rate"] == 2  # type: ignore[index]
        answer = await ask(subscribe={"channel": "prices", "conflate": False})
        assert "conflate" not in answer["subscribed"]  # type: ignore[operator]
        for wrong in ({"max_rate": 0}, {"max_rate": -1}, {"conflate": True}):
            answer = await ask(id=1, subscribe={"channel": "orders:c-1"} | wrong)
            assert answer["error"]["code"] == "bad-request", wrong  # type: ignore[index]
        await ask(unsubscribe={"channel": "calm"})
        await ask(unsubscribe={"channel": "orders"})
        for number in range(20):
            await gateway.publish("prices", item("a", number))
        numbers = [json.loads(await socket.recv())["event"]["data"]["number"] for _ in range(20)]
    assert numbers == list(range(20))


@pytest.mark.parametrize("query", ["max_rate=x", "max_rate=nan", "max_rate=0", "conflate=yes"])
async def test_a_pace_that_makes_no_sense_is_refused(
    gateway: Serving, kind: Kind, query: str
) -> None:
    with pytest.raises(Exception, match=r".*") as refused:
        async with kind.open(gateway.port, f"orders&{query}") as subscriber:
            await subscriber.stands()
    assert refused.value is not None
