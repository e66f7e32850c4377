"""What is said over `/ws`, to the letter."""

import asyncio
import json
from typing import Any

import pytest

from gateway.settings import Seconds
from tests.contract.serving import Serving, Transports, serving
from tests.contract.talking import talk
from tests.servers import RunningServer


def token(gateway: Serving) -> str:
    return gateway.gateway.hub.token


def exactly(frame: object) -> str:
    """A frame as it is written: compact, its members in this order."""
    return json.dumps(frame, separators=(",", ":"))


async def test_the_frames_are_those_of_the_design(gateway: Serving) -> None:
    async with talk(gateway.port) as client:
        began = token(gateway)
        subscribed = {"channel": "orders", "position": began, "recovered": True}
        await client.say({"id": 1, "subscribe": {"channel": "orders"}})
        assert await client.text() == exactly({"id": 1, "subscribed": subscribed})
        await gateway.publish("orders", {"sku": "A-1"})
        event = await client.text()
        (logged,) = await gateway.log()
        assert event == exactly({"event": logged.event, "position": token(gateway)})
        await client.say({"id": 2, "unsubscribe": {"channel": "orders"}})
        assert await client.text() == exactly({"id": 2, "unsubscribed": {"channel": "orders"}})
        await client.say({"id": 3, "subscribe": {"channel": "orders", "after": began}})
        assert await client.text() == exactly({"id": 3, "subscribed": subscribed})
        assert await client.text() == event


async def test_a_refusal_is_that_of_the_design(gateway: Serving) -> None:
    async with talk(gateway.port) as client:
        await client.say({"id": 3, "subscribe": {"channel": "unknown"}})
        sentence = "no configured channel pattern covers 'unknown'"
        error = {"code": "unknown-channel", "status": 404, "detail": sentence}
        assert await client.text() == exactly({"id": 3, "error": error})


async def test_the_last_frames_tell_the_position_and_say_goodbye(gateway: Serving) -> None:
    async with talk(gateway.port, "?channel=orders") as client:
        await client.hear()
        gateway.shut_down()
        assert await client.text() == exactly({"position": str(gateway.gateway.hub.token)})
        text = await client.text()
        retry_ms = json.loads(text)["goodbye"]["retry_ms"]
        assert text == exactly({"goodbye": {"code": 4000, "retry_ms": retry_ms}})
        assert await client.closed() == (4000, "shutdown")


@pytest.mark.parametrize("id", [7, "a-7", 0, -1])
async def test_an_answer_has_the_id_of_its_request(gateway: Serving, id: object) -> None:
    async with talk(gateway.port) as client:
        for request in ({"subscribe": {"channel": "orders"}}, {"subscribe": {"channel": "-"}}, {}):
            assert (await client.ask({"id": id} | request))["id"] == id


async def test_a_request_without_an_id_gets_an_answer_without_one(gateway: Serving) -> None:
    async with talk(gateway.port) as client:
        answer = await client.ask({"subscribe": {"channel": "orders"}})
        assert list(answer) == ["subscribed"]
        refusal = await client.ask({"unsubscribe": {"channel": "nowhere"}})
        assert refusal["id"] is None
        assert refusal["error"]["code"] == "bad-frame"


async def test_the_url_subscribes_at_once(gateway: Serving) -> None:
    await gateway.publish("orders", 1)
    query = "?channel=orders&channel=orders:c-1&after=earliest"
    async with talk(gateway.port, query) as client:
        answers = [await client.hear(), await client.hear()]
        assert [each["subscribed"]["channel"] for each in answers] == ["orders", "orders:c-1"]
        assert all(list(each) == ["subscribed"] for each in answers)
        assert await client.events(1) == [1]
        repeated = await client.ask({"id": 1, "subscribe": {"channel": "orders"}})
        assert repeated["error"]["code"] == "bad-frame"


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("?channel=unknown", "unknown-channel"),
        ("?channel=a%20b", "bad-request"),
        ("?channel=orders&channel=unknown", "unknown-channel"),
        ("?channel=orders&after=never", "bad-request"),
    ],
)
async def test_a_wrong_url_is_told_and_the_connection_stays(
    gateway: Serving, query: str, code: str
) -> None:
    async with talk(gateway.port, query) as client:
        refusal = await client.hear()
        assert refusal["id"] is None
        assert refusal["error"]["code"] == code
        assert await client.subscribe("orders")


async def test_unsubscribed_is_the_last_that_is_said_of_a_channel(gateway: Serving) -> None:
    async with talk(gateway.port) as client:
        await client.subscribe("orders")
        await client.subscribe("orders:c-1")
        await gateway.publish("orders", 1)
        await gateway.publish("orders:c-1", 2)
        assert await client.events(2) == [1, 2]
        position = token(gateway)
        assert "unsubscribed" in await client.ask({"id": 3, "unsubscribe": {"channel": "orders"}})
        await gateway.publish("orders", 3)
        await gateway.publish("orders:c-1", 4)
        assert await client.events(1) == [4]
        again = await client.subscribe("orders", position)
        assert again == {"channel": "orders", "position": position, "recovered": True}
        assert await client.events(1) == [3]
        await gateway.publish("orders", 5)
        assert await client.events(1) == [5]


async def test_answers_come_in_the_order_of_the_requests_also_during_a_replay(
    gateway: Serving,
) -> None:
    await gateway.publish("orders", *range(1100))
    await gateway.publish("orders:c-1", "one")
    async with talk(gateway.port) as client:
        subscribe = {"subscribe": {"channel": "orders", "after": "earliest"}}
        await client.say(
            {"id": 1} | subscribe,
            {"id": 2, "subscribe": {"channel": "orders:c-1", "after": "earliest"}},
            {"id": 3, "unsubscribe": {"channel": "orders"}},
            {"id": 4} | subscribe,
        )
        heard: list[Any] = []
        while len([each for each in heard if "event" in each]) < 1101:
            heard.append(await client.hear())
    assert [each["id"] for each in heard if "id" in each] == [1, 2, 3, 4]
    begin = heard.index(next(each for each in heard if each.get("id") == 4))
    before = [each["event"]["data"] for each in heard[:begin] if "event" in each]
    after = [each["event"]["data"] for each in heard[begin:] if "event" in each]
    assert "one" in before + after
    assert [data for data in after if data != "one"] == list(range(1100))
    assert set(before) <= {"one"}


async def test_two_replays_of_one_connection_join_up(gateway: Serving) -> None:
    await gateway.publish("orders", *range(700))
    await gateway.publish("orders:c-1", *range(700, 900))
    async with talk(gateway.port) as client:
        for id, channel in enumerate(["orders", "orders:c-1", "orders:c-2"]):
            after = {} if channel == "orders:c-2" else {"after": "earliest"}
            await client.say({"id": id, "subscribe": {"channel": channel} | after})
        await gateway.publish("orders:c-2", 900)
        await gateway.publish("orders", 901)
        heard = [await client.hear() for _ in range(905)]
    events = [each["event"]["data"] for each in heard if "event" in each]
    answers = [each["id"] for each in heard if "id" in each]
    assert answers == [0, 1, 2]
    assert sorted(events) == list(range(902))
    assert events[-2:] == [900, 901]


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ({"id": 1, "subscribe": {"channel": "no spaces"}}, "bad-request"),
        ({"id": 1, "subscribe": {"channel": "orders\r\nid: 9"}}, "bad-request"),
        ({"id": 1, "subscribe": {"channel": ""}}, "bad-request"),
        ({"id": 1, "subscribe": {"channel": "x" * 300}}, "bad-request"),
        ({"id": 1, "subscribe": {"channel": "orders:a:b"}}, "unknown-channel"),
        ({"id": 1, "subscribe": {"channel": "orders", "after": "yesterday"}}, "bad-request"),
        ({"id": 1, "subscribe": {"channel": "orders", "after": "e-1-" + "9" * 20}}, "bad-request"),
        ({"id": 1, "subscribe": {"channel": 5}}, "bad-frame"),
        ({"id": 1, "subscribe": {}}, "bad-frame"),
        ({"id": 1, "subscribe": {"channel": "orders", "since": 1}}, "bad-frame"),
        ({"id": 1, "unsubscribe": {"channel": "orders"}}, "bad-frame"),
        ({"id": 1, "dance": {}}, "bad-frame"),
        ({"id": 1}, "bad-frame"),
        (
            {"id": 1, "subscribe": {"channel": "orders"}, "unsubscribe": {"channel": "orders"}},
            "bad-frame",
        ),
        ({"id": 1, "command": {"path": "/nowhere", "data": {}}}, "unknown-command"),
        ({"id": 1, "command": {"data": {}}}, "bad-frame"),
    ],
)  # fmt: skip
async def test_a_wrong_request_is_refused_and_the_connection_stays(
    gateway: Serving, frame: object, code: str
) -> None:
    async with talk(gateway.port) as client:
        refusal = await client.ask(frame)
        assert refusal["id"] == 1
        assert refusal["error"]["code"] == code
        assert refusal["error"]["status"] >= 400
        assert refusal["error"]["detail"]
        assert await client.subscribe("orders")


@pytest.mark.parametrize(
    "frame",
    ["", "hello", '{"id":1', "[]", "1", "null", '{"id":1}{"id":2}', "[" * 50_000, '{"a":' * 9_000],
    ids=lambda frame: frame[:9] or "nothing",
)
async def test_what_is_no_frame_at_all_ends_the_connection(gateway: Serving, frame: str) -> None:
    async with talk(gateway.port) as client:
        refusal = await client.ask(frame)
        assert refusal["id"] is None
        assert refusal["error"]["code"] == "bad-frame"
        assert await client.closed() == (4500, "bad frame")


async def test_a_binary_message_ends_the_connection(gateway: Serving) -> None:
    async with talk(gateway.port) as client:
        await client.say(b'{"id":1,"subscribe":{"channel":"orders"}}')
        assert await client.closed() == (4500, "bad frame")


async def test_subscriptions_of_one_connection_are_limited(
    log: RunningServer, transports: Transports
) -> None:
    async with serving(log, transports, max_subscriptions=2) as gateway:
        async with talk(gateway.port, "?channel=orders") as client:
            await client.hear()
            await client.subscribe("orders:1")
            refusal = await client.ask({"id": 9, "subscribe": {"channel": "orders:2"}})
            assert refusal["error"]["code"] == "too-many-subscriptions"
            assert refusal["error"]["status"] == 429
            await client.ask({"id": 10, "unsubscribe": {"channel": "orders:1"}})
            assert await client.subscribe("orders:2")
        async with talk(
            gateway.port, "?channel=orders:1&channel=orders:2&channel=orders"
        ) as client:
            assert (await client.hear())["error"]["code"] == "too-many-subscriptions"


async def test_a_command_is_accepted_and_its_life_is_pushed(gateway: Serving) -> None:
    async with talk(gateway.port) as client:
        accepted = await client.ask({"id": 3, "command": {"path": "/orders", "data": {"sku": 1}}})
        id = accepted["accepted"]["id"]
        assert accepted == {"id": 3, "accepted": {"id": id}}
        assert (await client.subscribe(f"commands:{id}", "earliest"))["recovered"]
        event = (await client.hear())["event"]
        assert event["type"] == "command.accepted"
        assert event["subject"] == id
        assert event["data"]["status"] == "accepted"


async def test_many_commands_at_once_are_all_answered(gateway: Serving) -> None:
    async with talk(gateway.port) as client:
        await client.say(*({"id": n, "command": {"path": "/orders"}} for n in range(150)))
        answers = [await client.hear() for _ in range(150)]
    assert sorted(answer["id"] for answer in answers) == list(range(150))
    assert len({answer["accepted"]["id"] for answer in answers}) == 150


async def test_a_heartbeat_is_a_position(log: RunningServer, transports: Transports) -> None:
    async with (
        serving(log, transports, heartbeat=Seconds(0.4)) as gateway,
        talk(gateway.port, "?channel=orders") as client,
    ):
        await client.hear()
        assert await client.text() == exactly({"position": token(gateway)})


async def test_who_comes_back_from_the_same_place_shares_one_read(gateway: Serving) -> None:
    async with talk(gateway.port, "?channel=orders") as first:
        position = (await first.hear())["subscribed"]["position"]
    await gateway.publish("orders", *range(20))
    await gateway.settled()
    clients = 100
    together = asyncio.Barrier(clients)
    before = await gateway.reads()

    async def come_back() -> None:
        async with talk(gateway.port) as client:
            await together.wait()
            assert (await client.subscribe("orders", position))["recovered"]
            assert await client.events(20) == list(range(20))

    async with asyncio.TaskGroup() as tasks:
        for _ in range(clients):
            tasks.create_task(come_back())
    assert await gateway.reads() - before <= 10
