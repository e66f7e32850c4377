"""The dispatcher: what becomes of a command on its way to the log, through whichever door."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect

from gateway import Command, Event, handles
from gateway.broker.keys import Keys
from gateway.broker.streams import partition_of
from gateway.commands import FINAL, Status
from gateway.config import (
    BrokerConfig,
    ChannelConfig,
    CommandConfig,
    Config,
    FeedConfig,
    HistoryConfig,
    RouteConfig,
)
from gateway.dispatch import Dispatcher, Origin
from gateway.errors import (
    BadRequest,
    GatewayError,
    PayloadTooLarge,
    UnknownCommand,
    Unroutable,
    ValidationFailed,
)
from tests.api.stand import Stand, standing
from tests.servers import RunningServer, eventually

PARTITIONS = 4


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": True}


@handles("echo")
async def echo(command: Command[Any]) -> Event:
    return Event("echoed", data=command.data)


def config_of(server: RunningServer, folder: Path) -> Config:
    schema = folder / "order.json"
    schema.write_text('{"properties":{"qty":{"type":"integer"}}}')
    return Config(
        broker=BrokerConfig(
            url=server.url, namespace=f"d-{secrets.token_hex(4)}", partitions=PARTITIONS
        ),
        commands=[
            CommandConfig(
                path="/orders",
                type="order.place",
                stream="orders",
                schema=schema,
                key="data.customer",
                routes=[
                    RouteConfig(when="data.tier == 'premium'", stream="orders.priority"),
                    RouteConfig(when="data.qty > 100", stream="orders.bulk"),
                ],
            ),
            CommandConfig(path="/shops/{shop}/open", type="shop.open", stream="shops"),
            CommandConfig(path="/echo/{name}", type="echo", stream="echoes"),
        ],
        channels=[
            ChannelConfig(pattern="log", history=HistoryConfig(size=1000)),
            ChannelConfig(pattern="orders:{customer}"),
        ],
        feeds=[
            FeedConfig(type="echoed", channels=["'log'"]),
            FeedConfig(type="order.*", channels=["'orders:' + data.customer"]),
        ],
    )


@pytest.fixture(scope="module")
async def stand(
    valkey: RunningServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stand]:
    async with standing(config_of(valkey, tmp_path_factory.mktemp("dispatch")), echo) as stand:
        yield stand


@pytest.fixture
def dispatcher(stand: Stand) -> Dispatcher:
    return stand.gateway.dispatcher


async def entries(stand: Stand, stream: str) -> list[tuple[int, dict[str, Any]]]:
    """Return the commands of a stream that nobody handles, each with its partition."""
    keys = Keys(stand.gateway.config.broker.namespace)
    redis: Any = stand.broker.blocking()
    found = []
    for partition in range(PARTITIONS):
        for _, fields in await redis.xrange(keys.commands(stream, partition)):
            found.append((partition, json.loads(fields[b"e"])))
    return found


async def envelope(stand: Stand, stream: str, id: str) -> tuple[int, dict[str, Any]]:
    (found,) = [each for each in await entries(stand, stream) if each[1]["id"] == id]
    return found


def order(**data: Any) -> bytes:
    return json.dumps({"customer": "c-19", "tier": "free", "qty": 1} | data).encode()


# --- Routing


@pytest.mark.parametrize(
    ("data", "stream"),
    [
        ({}, "orders"),
        ({"tier": "premium"}, "orders.priority"),
        ({"qty": 101}, "orders.bulk"),
        ({"tier": "premium", "qty": 101}, "orders.priority"),
    ],
)
async def test_the_first_route_that_holds_decides_the_stream(
    stand: Stand, dispatcher: Dispatcher, data: dict[str, Any], stream: str
) -> None:
    status, *_ = await dispatcher.send("/orders", order(**data))
    assert (await envelope(stand, stream, status.id))[1]["type"] == "order.place"


async def test_the_key_decides_the_partition(stand: Stand, dispatcher: Dispatcher) -> None:
    for customer in ("a", "b", "c", "d", "e"):
        for _ in range(3):
            status, *_ = await dispatcher.send("/orders", order(customer=customer))
            partition, found = await envelope(stand, "orders", status.id)
            assert partition == partition_of(customer, PARTITIONS)
            assert found["partitionkey"] == customer


async def test_commands_without_a_key_spread(stand: Stand, dispatcher: Dispatcher) -> None:
    await asyncio.gather(*[dispatcher.send("/shops/x/open", b"") for _ in range(60)])
    found = await entries(stand, "shops")
    assert {partition for partition, _ in found} == set(range(PARTITIONS))
    assert not any("partitionkey" in each for _, each in found)


# --- The envelope


async def test_a_command_is_a_cloudevent_from_the_first_hop_on(
    stand: Stand, dispatcher: Dispatcher
) -> None:
    origin = Origin(traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01", tracestate="x=y")
    status, *_ = await dispatcher.send("/shops/K%C3%B6ln%20Nord/open", b'{"at":9}', origin=origin)
    _, found = await envelope(stand, "shops", status.id)
    assert found == {
        "specversion": "1.0",
        "id": status.id,
        "type": "shop.open",
        "source": "/shops/K%C3%B6ln%20Nord/open",
        "time": status.accepted_at,
        "traceparent": origin.traceparent,
        "tracestate": "x=y",
        "datacontenttype": "application/json",
        "data": {"at": 9, "shop": "Köln Nord"},
    }


async def test_data_that_needs_no_change_stays_the_senders_own_bytes(
    stand: Stand, dispatcher: Dispatcher
) -> None:
    body = b'{ "customer":"c", "tier" : "\\u00e9", "qty":1, "price": 1.10, "n": 1e2 }'
    status, *_ = await dispatcher.send("/orders", body)
    keys = Keys(stand.gateway.config.broker.namespace)
    redis: Any = stand.broker.blocking()
    found = await redis.xrange(keys.commands("orders", partition_of("c", PARTITIONS)))
    (raw,) = [fields[b"e"] for _, fields in found if status.id.encode() in fields[b"e"]]
    assert raw.endswith(b'"data":' + body + b"}")


async def test_an_accepted_command_is_told_of_on_its_own_channel(
    stand: Stand, dispatcher: Dispatcher
) -> None:
    status, *_ = await dispatcher.send("/orders", order())
    assert (status.status, status.attempts) == (Status.ACCEPTED, 0)
    history = await stand.http.get(f"/channels/commands:{status.id}/history")
    (event,) = history.json()
    assert (event["type"], event["subject"]) == ("command.accepted", status.id)
    assert event["data"] == (await stand.http.get(f"/commands/{status.id}")).json()


# --- Refusals


@pytest.mark.parametrize(
    ("path", "body", "error", "detail"),
    [
        ("/nowhere", b"{}", UnknownCommand, "no command is configured for the path '/nowhere'"),
        ("", b"{}", UnknownCommand, "no command is configured for the path ''"),
        ("orders", b"{}", UnknownCommand, "no command is configured"),
        ("/orders?x=1", b"{}", UnknownCommand, "no command is configured"),
        ("/shops/%C3/open", b"{}", BadRequest, "expected percent-encoded UTF-8"),
        ("/orders", b"{", BadRequest, "expected JSON"),
        ("/orders", b'{"qty":"a"}', ValidationFailed, "at /qty: "),
        ("/orders", b'{"qty":1}', Unroutable, "customer"),
        ("/orders", b'{"customer":"c","qty":1}', Unroutable, "tier"),
        ("/orders", b'{"customer":[],"tier":"x","qty":1}', Unroutable, "expected the key"),
        ("/orders", b'{"customer":"","tier":"x","qty":1}', Unroutable, "expected the key"),
        ("/orders", b"[]", Unroutable, "data.customer"),
        ("/shops/a/open", b'{"shop":"b"}', Unroutable, "expected 'shop' to be 'a' as in the path"),
        ("/shops/a/open", b'"%b"' % (b"x" * (1 << 20)), PayloadTooLarge, "at most 1048576 bytes"),
    ],
)
async def test_what_is_refused_is_not_in_the_log(
    stand: Stand,
    dispatcher: Dispatcher,
    path: str,
    body: bytes,
    error: type[GatewayError],
    detail: str,
) -> None:
    streams = stand.gateway.policy.commands.streams
    before = [await entries(stand, stream) for stream in streams]
    with pytest.raises(error, match=detail.replace("?", r"\?")):
        await dispatcher.send(path, body)
    assert [await entries(stand, stream) for stream in streams] == before


# --- Waiting


async def test_who_waits_is_given_the_outcome(dispatcher: Dispatcher) -> None:
    status, *_ = await dispatcher.send("/echo/x", b"{}", wait=30)
    assert (status.status, status.attempts) == (Status.SUCCEEDED, 1)


async def test_who_waits_too_briefly_is_given_the_beginning(dispatcher: Dispatcher) -> None:
    assert (await dispatcher.send("/orders", order(), wait=0.05)).status.status is Status.ACCEPTED


async def test_a_shutdown_sends_home_who_waits(valkey: RunningServer, tmp_path: Path) -> None:
    async with standing(config_of(valkey, tmp_path)) as stand:
        waiting = asyncio.create_task(stand.gateway.dispatcher.send("/orders", order(), wait=3600))
        await eventually(lambda: len(stand.gateway.hub._audiences), within=30, reason="it waited")
        await stand.http.get("/commands/x")  # behind the command, in the order of calls
        stand.gateway.say_goodbye()
        assert (await asyncio.wait_for(waiting, 30)).status.status not in FINAL


async def test_nobody_is_left_listening(stand: Stand, dispatcher: Dispatcher) -> None:
    with pytest.raises(BadRequest):
        await dispatcher.send("/echo/x", b"{", wait=30)
    leaving = asyncio.create_task(dispatcher.send("/orders", order(), wait=30))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.wait([leaving])
    await dispatcher.send("/echo/x", b"{}", wait=30)
    assert len(stand.gateway.hub._audiences) == 0


# --- Events


async def test_events_are_appended_all_or_none(stand: Stand, dispatcher: Dispatcher) -> None:
    good = Event("echoed", id="e-1")
    with pytest.raises(Unroutable):
        await dispatcher.publish([good, Event("order.placed", data={})])
    history = await stand.http.get("/channels/log/history?limit=1000")
    assert "e-1" not in [event["id"] for event in history.json()]
    nowhere = Event("unheard", id="e-2")
    assert (await dispatcher.publish([good, nowhere])).ids == ["e-1", "e-2"]
    history = await stand.http.get("/channels/log/history?limit=1000")
    assert [event["id"] for event in history.json()][-1] == "e-1"


# --- Doors


@asynccontextmanager
async def socket_of(stand: Stand) -> AsyncIterator[Any]:
    async with connect(f"ws://127.0.0.1:{stand.port}/ws", proxy=None) as socket:
        yield socket


async def by_websocket(stand: Stand, path: str) -> tuple[str, str]:
    """Send a command; return its id and an empty code, or the refusal's code."""
    async with socket_of(stand) as socket:
        await socket.send(json.dumps({"id": 1, "command": {"path": path, "data": {}}}))
        answer = json.loads(await asyncio.wait_for(socket.recv(), 30))
        if "error" in answer:
            return "", answer["error"]["code"]
        return answer["accepted"]["id"], ""


async def by_http(stand: Stand, path: str) -> tuple[str, str]:
    answer = (await stand.post(path, b"{}")).json()
    return (answer["id"], "") if "code" not in answer else ("", answer["code"])


async def data_of(stand: Stand, id: str) -> Any:
    """Wait for the event of an echo; return its data."""

    async def done() -> Any:
        history = await stand.http.get("/channels/log/history?limit=1000")
        return [event for event in history.json() if event.get("causationid") == id]

    (event,) = await eventually(done, within=30, reason=f"{id} was echoed")
    return event["data"]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/echo/plain", "plain"),
        ("/echo/two%20words", "two words"),
        ("/echo/a%3Fb%23c%25", "a?b#c%"),
        ("/echo/caf%c3%A9", "café"),
        ("/echo/a+b", "a+b"),
    ],
)
async def test_a_path_means_the_same_at_every_door(stand: Stand, path: str, name: str) -> None:
    for door in (by_http, by_websocket):
        id, code = await door(stand, path)
        assert code == ""
        assert await data_of(stand, id) == {"name": name}


@pytest.mark.parametrize(
    ("path", "codes"),
    [
        ("/echo/%FF", {"bad-request"}),
        ("/echo/a%2Fb", {"not-found", "unknown-command"}),
        ("/echo/", {"not-found", "unknown-command"}),
        ("/nowhere", {"not-found", "unknown-command"}),
    ],
)
async def test_a_path_is_refused_at_every_door(stand: Stand, path: str, codes: set[str]) -> None:
    for door in (by_http, by_websocket):
        assert (await door(stand, path))[1] in codes
