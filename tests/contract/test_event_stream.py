"""What goes over `/sse`, to the letter."""

import asyncio
import json
from urllib.parse import quote

import httpx
import pytest

from gateway.events import Event
from gateway.settings import Seconds
from tests.contract.serving import Serving, Transports, serving
from tests.contract.subscribers import EventStreamSubscriber, HTTPStream, http_stream
from tests.servers import RunningServer

STREAM = "text/event-stream"


async def body(stream: HTTPStream, until: str) -> str:
    """Return what came of the body, once it ends with this."""
    text = ""
    async with asyncio.timeout(30):
        while not text.endswith(until):
            data = await stream.read()
            assert data, f"the stream ended: {text}"
            text += data.decode()
    return text


async def rest(stream: HTTPStream) -> str:
    """Return all that comes until the end."""
    text = ""
    async with asyncio.timeout(30):
        while data := await stream.read():
            text += data.decode()
    return text


async def test_the_blocks_are_those_of_the_design(gateway: Serving) -> None:
    hub = gateway.gateway.hub
    async with http_stream(gateway.port, "/sse?channel=orders", []) as stream:
        standing = f'{{"position":"{hub.token}","recovered":true}}'
        assert await body(stream, "\n\n") == (
            f'event: subscribed\nid: {hub.token}\ndata: {{"channels":{{"orders":{standing}}}}}\n\n'
        )
        await gateway.publish("orders", {"sku": "A-1"})
        text = await body(stream, "\n\n")
        (logged,) = await gateway.log()
        event = json.dumps(logged.event, separators=(",", ":"))
        assert text == f"id: {hub.token}\ndata: {event}\n\n"
        gateway.shut_down()
        text = await rest(stream)
        retry_ms = json.loads(text.splitlines()[-2].removeprefix("data: "))["retry_ms"]
        assert text == heartbeat(gateway) + (
            f'retry: {retry_ms}\nevent: goodbye\ndata: {{"code":4000,"retry_ms":{retry_ms}}}\n\n'
        )


def heartbeat(gateway: Serving) -> str:
    return f": heartbeat\nevent: position\nid: {gateway.gateway.hub.token}\ndata: {{}}\n\n"


async def test_a_heartbeat_is_a_comment_and_a_position(
    log: RunningServer, transports: Transports
) -> None:
    async with (
        serving(log, transports, heartbeat=Seconds(0.4)) as gateway,
        http_stream(gateway.port, "/sse?channel=orders", []) as stream,
    ):
        await body(stream, "}}}\n\n")
        assert await body(stream, "\n\n") == heartbeat(gateway)


async def test_the_head_is_that_of_an_event_stream(gateway: Serving) -> None:
    for method in ("GET", "HEAD"):
        async with http_stream(gateway.port, "/sse?channel=orders", [], method=method) as stream:
            headers = {name.decode(): value.decode() for name, value in stream.response.headers}
            assert stream.response.status_code == 200
            assert headers["content-type"].partition(";")[0] == STREAM
            assert headers["cache-control"] == "no-store"
            assert headers["x-accel-buffering"] == "no"
            if method == "HEAD":
                assert await stream.read() == b""
    await gateway.empty()


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("", 400, "bad-request"),
        ("?channel=", 400, "bad-request"),
        ("?channel=unknown", 404, "unknown-channel"),
        ("?channel=orders&channel=unknown", 404, "unknown-channel"),
        ("?channel=orders%0d%0aid:%201", 400, "bad-request"),
        ("?channel=orders%00", 400, "bad-request"),
        ("?channel=orders&last_event_id=never", 400, "bad-request"),
        ("?channel=orders&last_event_id=e-1-1%0adata:%20x", 400, "bad-request"),
        ("?channel=orders&last_event_id=e%0a-1-1", 400, "bad-request"),
        ("?" + "&".join(f"channel=orders:{n}" for n in range(101)), 429, "too-many-subscriptions"),
    ],
)
async def test_a_wrong_request_is_a_problem(
    gateway: Serving, query: str, status: int, code: str
) -> None:
    async with httpx.AsyncClient(timeout=30) as client:
        answer = await client.get(f"http://127.0.0.1:{gateway.port}/sse{query}")
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == code
    assert len(gateway.gateway.hub) == 0


async def test_the_header_of_a_browser_that_comes_back_beats_the_url(gateway: Serving) -> None:
    await gateway.publish("orders", 1, 2, 3)
    await gateway.settled()
    log = await gateway.log()
    first, second = (f"{gateway.gateway.hub.epoch}-{each.id}" for each in log[:2])
    for query, headers, expected in (
        (f"&last_event_id={first}", [], [2, 3]),
        (f"&last_event_id={first}", [("Last-Event-ID", second)], [3]),
        (f"&last_event_id={first}", [("Last-Event-ID", "")], [2, 3]),
        ("&last_event_id=earliest", [], [1, 2, 3]),
        ("", [("Last-Event-ID", "earliest")], [1, 2, 3]),
    ):
        target = f"/sse?channel=orders{query}"
        async with http_stream(gateway.port, target, headers) as stream:
            subscriber = EventStreamSubscriber(stream)
            await subscriber.has(len(expected))
        assert subscriber.data == expected
        assert subscriber.recovered == {"orders": True}


async def test_nothing_in_an_event_can_begin_a_field_of_its_own(gateway: Serving) -> None:
    evil = "x\r\nid: evil\r\ndata: evil\n\nevent: goodbye\rretry: 1\u2028\u0085\x00"
    event = Event(
        type=evil, id=evil, source=evil, subject=evil, data={evil: evil},
        extensions={"extra": evil}, channel="orders",
    )  # fmt: skip
    async with EventStreamSubscriber.open(gateway.port, "orders") as subscriber:
        await subscriber.stands()
        await gateway.gateway.dispatcher.publish([event])
        await subscriber.has(1)
        await gateway.publish("orders", "the next")
        await subscriber.has(2)
    assert [set(block) for block in subscriber.blocks[1:]] == [{"id", "data"}] * 2
    delivered = subscriber.delivered[0].event
    for name in ("type", "id", "source", "subject", "extra"):
        assert delivered[name] == evil
    assert delivered["data"] == {evil: evil}


async def test_the_oldest_position_of_several_channels_is_the_one_to_come_back_with(
    gateway: Serving,
) -> None:
    async with EventStreamSubscriber.open(gateway.port, "last:5", "orders") as first:
        await first.stands(2)
        await gateway.publish("orders", "begin")
        await first.has(1)
    await gateway.publish("last:5", *range(9))
    async with EventStreamSubscriber.open(
        gateway.port, "last:5", "orders", after=first.position
    ) as second:
        await second.stands(2)
    standings = second.standings
    assert second.blocks[0]["id"] == standings["orders"].position == first.position
    assert standings["last:5"].position > standings["orders"].position


async def test_a_stream_may_follow_another_request_on_its_connection(gateway: Serving) -> None:
    limits = httpx.Limits(max_connections=1)
    async with httpx.AsyncClient(limits=limits, timeout=30) as client:
        base = f"http://127.0.0.1:{gateway.port}"
        assert (await client.get(f"{base}/healthz")).status_code == 200
        async with client.stream("GET", f"{base}/sse?channel=orders") as answer:
            lines = answer.aiter_lines()
            assert await anext(lines) == "event: subscribed"
            await gateway.publish("orders", "here")
            async for line in lines:
                if '"here"' in line:
                    break
    await gateway.empty()


async def test_who_closes_only_half_is_let_go(gateway: Serving) -> None:
    async with http_stream(gateway.port, "/sse?channel=orders", []) as stream:
        await body(stream, "\n\n")
        stream.writer.write_eof()
        await gateway.empty()


async def test_a_name_may_hold_all_that_a_name_may_hold(gateway: Serving) -> None:
    channel = "orders:a.b@c/d=e+f~g-h_9"
    target = f"/sse?channel={quote(channel, safe='')}"
    async with http_stream(gateway.port, target, []) as stream:
        subscriber = EventStreamSubscriber(stream)
        await subscriber.stands()
        await gateway.publish(channel, 1)
        await subscriber.has(1)
    assert list(subscriber.standings) == [channel]
