"""Rate limits: what is refused, what waits, and what callers are told, through every door."""

import asyncio
import json
import re
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from gateway.config import LimitConfig, QueueConfig
from gateway.settings import Frequency, Of, Per
from tests.api.conftest import TOKEN, config_of
from tests.api.stand import Stand, problem, standing
from tests.servers import RunningServer


def limit(name: str, *per: Per, rate: str = "2/d", **more: Any) -> LimitConfig:
    return LimitConfig(name=name, per=per, rate=Frequency.parse(rate), **{"burst": 2} | more)


LIMITS = [
    limit("orders", Per.IP, commands=["order.place"]),
    limit("echoes", Per.CONNECTION, commands=["echo"]),
    limit("wait", Per.IP, rate="5/s", burst=1, commands=["unheard"], queue=QueueConfig(size=2)),
    limit("both", Per.COMMAND, burst=3, commands=["break"]),
    limit("breaks", Per.IP, burst=1, commands=["break"]),
    limit("facts", Per.IP, of=Of.EVENTS),
    limit("subscriptions", Per.IP, of=Of.SUBSCRIPTIONS),
    limit("connections", Per.IP, rate="3/m", burst=3, of=Of.CONNECTIONS),
]


@asynccontextmanager
async def limited(server: RunningServer, folder: Path, **more: Any) -> AsyncIterator[Stand]:
    config = config_of(server, folder, trusted_proxies=["127.0.0.1"])
    config = msgspec.structs.replace(config, **{"limits": LIMITS} | more)
    async with standing(config) as stand:
        yield stand


@pytest.fixture(scope="module")
async def api(
    valkey: RunningServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stand]:
    async with limited(valkey, tmp_path_factory.mktemp("rates")) as stand:
        yield stand


@pytest.fixture
def address() -> str:
    """An address from which nobody came before."""
    return f"2001:db8:{secrets.token_hex(2)}:{secrets.token_hex(2)}::1"


ORDER = json.dumps({"customer": "c-1", "qty": 1})


async def post(api: Stand, path: str, body: str, address: str) -> httpx.Response:
    return await api.post(path, body, x_forwarded_for=address)


async def test_a_burst_is_accepted_and_then_it_is_refused(api: Stand, address: str) -> None:
    answers = [await post(api, "/orders", ORDER, address) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [202, 202, 429]
    for answer, left in zip(answers, (1, 0, 0), strict=True):
        assert answer.headers["ratelimit-policy"] == '"orders";q=2;w=86400'
        assert re.fullmatch(rf'"orders";r={left};t=\d+', answer.headers["ratelimit"])
    detail = problem(answers[2], 429, "rate-limited")
    assert detail == "expected at most 2/d commands per ip"
    document = answers[2].json()
    assert document["limit"] == "orders"
    seconds = int(answers[2].headers["retry-after"])
    assert 43_000 < seconds <= 43_200
    assert seconds - 1 <= document["retry_after_ms"] / 1000 <= seconds
    assert answers[2].headers["ratelimit"].endswith(f"t={seconds}")


async def test_others_have_their_own(api: Stand, address: str) -> None:
    for _ in range(3):
        await post(api, "/orders", ORDER, address)
    assert (await post(api, "/orders", ORDER, "198.51.100.9")).status_code == 202
    assert (await post(api, "/echo", "{}", address)).status_code == 202


async def test_what_is_refused_is_not_even_parsed(api: Stand, address: str) -> None:
    bad = await post(api, "/orders", "no JSON", address)
    problem(bad, 400, "bad-request")
    assert bad.headers["ratelimit"].startswith('"orders";r=1')  # it counts all the same
    await post(api, "/orders", ORDER, address)
    problem(await post(api, "/orders", "no JSON", address), 429, "rate-limited")


async def test_all_limits_that_concern_a_command_are_charged_or_none(
    api: Stand, address: str
) -> None:
    first = await post(api, "/break", "{}", address)
    assert re.fullmatch(r'"both";r=2;t=\d+, "breaks";r=0;t=\d+', first.headers["ratelimit"])
    refused = await post(api, "/break", "{}", address)
    assert problem(refused, 429, "rate-limited")
    assert re.fullmatch(r'"breaks";r=0;t=\d+', refused.headers["ratelimit"])
    other = await post(api, "/break", "{}", "198.51.100.10")
    assert other.headers["ratelimit"].startswith('"both";r=1;')


async def test_who_finds_a_queue_waits_for_its_turn(api: Stand, address: str) -> None:
    clock = asyncio.get_running_loop().time
    began = clock()
    answers = await asyncio.gather(*(post(api, "/unheard", "{}", address) for _ in range(5)))
    took = clock() - began
    assert sorted(answer.status_code for answer in answers) == [202, 202, 202, 429, 429]
    assert took >= 0.4  # the third has waited for two turns
    (waited,) = {int(each.headers["retry-after"]) for each in answers if each.status_code == 429}
    assert waited == 1


@asynccontextmanager
async def socket_of(api: Stand, address: str, query: str = "") -> AsyncIterator[Any]:
    url = f"ws://127.0.0.1:{api.port}/ws{query}"
    headers = {"x-forwarded-for": address}
    async with connect(url, proxy=None, additional_headers=headers) as socket:
        yield socket


async def ask(socket: Any, id: int, **frame: object) -> Any:
    await socket.send(json.dumps({"id": id, **frame}))
    while (answer := json.loads(await socket.recv())).get("id") != id:
        pass
    return answer


async def test_commands_of_a_websocket_are_counted_with_those_over_http(
    api: Stand, address: str
) -> None:
    command = {"path": "/orders", "data": {"customer": "c-1", "qty": 1}}
    await post(api, "/orders", ORDER, address)
    async with socket_of(api, address) as socket:
        assert "accepted" in await ask(socket, 1, command=command)
        error = (await ask(socket, 2, command=command))["error"]
        assert (error["code"], error["status"], error["limit"]) == ("rate-limited", 429, "orders")
        assert 43_000_000 < error["retry_after_ms"] <= 43_200_000
    problem(await post(api, "/orders", ORDER, address), 429, "rate-limited")


async def test_each_connection_has_its_own(api: Stand, address: str) -> None:
    command = {"path": "/echo"}
    async with socket_of(api, address) as one, socket_of(api, address) as other:
        for id, expected in enumerate(["accepted", "accepted", "error"]):
            assert expected in await ask(one, id, command=command)
        assert "accepted" in await ask(other, 1, command=command)


async def test_each_event_of_a_batch_counts(api: Stand, address: str) -> None:
    def events(count: int) -> list[dict[str, Any]]:
        return [
            {"specversion": "1.0", "id": secrets.token_hex(8), "source": "/t", "type": "t"}
            for _ in range(count)
        ]

    headers = {
        "authorization": f"Bearer {TOKEN}",
        "content_type": "application/cloudevents-batch+json",
        "x_forwarded_for": address,
    }
    too_many = await api.post("/events", json.dumps(events(3)), **headers)
    assert problem(too_many, 429, "rate-limited") == (
        "expected at most 2 events at once, but there are 3"
    )
    assert "retry-after" not in too_many.headers
    answer = await api.post("/events", json.dumps(events(2)), **headers)
    assert (answer.status_code, len(answer.json()["ids"])) == (202, 2)
    assert answer.headers["ratelimit"].startswith('"facts";r=0;')
    problem(await api.post("/events", json.dumps(events(1)), **headers), 429, "rate-limited")


async def test_each_channel_of_a_stream_counts_as_a_subscription(api: Stand, address: str) -> None:
    headers = {"x-forwarded-for": address}
    url = "/sse?channel=log&channel=mute"
    async with api.http.stream("GET", url, headers=headers) as stream:
        assert stream.status_code == 200
        problem(await api.http.get("/sse?channel=log", headers=headers), 429, "rate-limited")


async def test_subscriptions_of_a_websocket_are_refused_in_their_order(
    api: Stand, address: str
) -> None:
    async with socket_of(api, address, "?channel=mute") as socket:
        frames = [{"id": 1, "subscribe": {"channel": "log"}}]
        frames += [{"id": 2, "unsubscribe": {"channel": "log"}}]  # overtakes nothing
        frames += [{"id": 3, "subscribe": {"channel": "few/1"}}]
        for frame in frames:
            await socket.send(json.dumps(frame))
        found = [json.loads(await socket.recv()) for _ in range(4)]
        assert [next(iter(each.keys() - {"id"})) for each in found] == [
            *("subscribed", "subscribed", "unsubscribed", "error")
        ]
        assert found[3]["error"]["limit"] == "subscriptions"


async def test_who_connects_too_often_is_told_when_to_come_back(api: Stand, address: str) -> None:
    for _ in range(3):
        async with socket_of(api, address):
            pass
    async with socket_of(api, address) as socket:
        error = json.loads(await socket.recv())["error"]
        assert (error["code"], error["limit"]) == ("rate-limited", "connections")
        goodbye = json.loads(await socket.recv())["goodbye"]
        assert goodbye["code"] == 4000
        assert error["retry_after_ms"] <= goodbye["retry_ms"] <= 2 * 20_000
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
        assert closed.value.rcvd
        assert closed.value.rcvd.code == 4000


async def test_a_refusal_costs_the_broker_nothing_for_a_while(api: Stand, address: str) -> None:
    redis: Any = api.broker.blocking()

    async def calls() -> int:
        stats = await redis.info("commandstats")
        found: int = stats["cmdstat_evalsha"]["calls"]
        return found

    for _ in range(2):
        await post(api, "/orders", ORDER, address)
    before = await calls()
    answers = [await post(api, "/orders", ORDER, address) for _ in range(60)]
    assert {answer.status_code for answer in answers} == {429}
    assert await calls() - before < 30  # the worker, the feed and the probe call now and then too


async def test_refusals_are_counted_by_the_name_of_the_limit(api: Stand, address: str) -> None:
    def counted(text: str) -> float:
        found = re.search(r'^gateway_limited_total\{limit="orders"\} (\S+)$', text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    before = counted((await api.http.get("/metrics")).text)
    for _ in range(5):
        await post(api, "/orders", ORDER, address)
    assert counted((await api.http.get("/metrics")).text) == before + 3
