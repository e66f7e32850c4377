"""Quotas through the doors: what is refused, how, and that every end gives back what was held."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from gateway.config import QuotasConfig
from tests.api.conftest import config_of
from tests.api.stand import Stand, problem, standing
from tests.contract.talking import REQUEST, raw
from tests.servers import RunningServer, eventually


@pytest.fixture
async def api(
    valkey: RunningServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stand]:
    quotas = QuotasConfig(connections_per_ip=2, subscriptions_per_principal=3)
    config = config_of(valkey, tmp_path_factory.mktemp("quotas"))
    async with standing(msgspec.structs.replace(config, quotas=quotas)) as stand:
        yield stand


def socket(api: Stand, query: str = "") -> Any:
    return connect(f"ws://127.0.0.1:{api.port}/ws{query}", proxy=None)


async def ask(peer: Any, id: int, **frame: object) -> Any:
    await peer.send(json.dumps({"id": id, **frame}))
    while (answer := json.loads(await peer.recv())).get("id") != id:
        pass
    return answer


async def empty(api: Stand) -> None:
    await eventually(lambda: not len(api.gateway.hub), within=30, reason="all connections ended")


async def test_a_websocket_too_many_is_told_when_to_come_back(api: Stand) -> None:
    async with socket(api), socket(api):
        async with socket(api) as third:
            error = json.loads(await third.recv())["error"]
            assert (error["code"], error["status"]) == ("quota-exceeded", 429)
            goodbye = json.loads(await third.recv())["goodbye"]
            assert 10_000 <= goodbye["retry_ms"] <= 20_000
            with pytest.raises(ConnectionClosed) as closed:
                await third.recv()
            assert closed.value.rcvd
            assert closed.value.rcvd.code == 4000
        answer = await api.http.get("/sse?channel=log")
        assert problem(answer, 429, "quota-exceeded") == "expected at most 2 connections per ip"
        assert answer.headers["retry-after"] == "10"


async def test_both_transports_give_back_what_they_held(api: Stand) -> None:
    for _ in range(3):
        async with (
            socket(api, "?channel=log"),
            api.http.stream("GET", "/sse?channel=log&channel=mute") as stream,
        ):
            assert stream.status_code == 200
        await empty(api)


async def test_subscriptions_of_all_connections_count_together(api: Stand) -> None:
    async with socket(api, "?channel=log") as one, socket(api) as other:
        assert "subscribed" in await ask(one, 1, subscribe={"channel": "mute"})
        assert "subscribed" in await ask(other, 1, subscribe={"channel": "log"})
        error = (await ask(other, 2, subscribe={"channel": "mute"}))["error"]
        assert (error["code"], error["limit"]) == ("quota-exceeded", "subscriptions_per_principal")
        assert "unsubscribed" in await ask(one, 2, unsubscribe={"channel": "mute"})
        assert "subscribed" in await ask(other, 3, subscribe={"channel": "mute"})


async def test_a_subscription_that_is_refused_for_another_reason_holds_nothing(
    api: Stand,
) -> None:
    async with socket(api, "?channel=nowhere") as peer:
        for id in range(5):
            for frame in ({"channel": "nowhere"}, {"channel": "log", "after": "x"}):
                assert "error" in await ask(peer, id, subscribe=frame)
        for channel in ("log", "mute", "few/1"):
            assert "subscribed" in await ask(peer, 9, subscribe={"channel": channel})
        assert "error" in await ask(peer, 10, subscribe={"channel": "few/2"})


async def test_a_handshake_that_breaks_off_holds_nothing(api: Stand) -> None:
    for _ in range(5):
        status, _, _ = await api.raw(b"GET /sse?channel=nowhere HTTP/1.1\r\nhost: x\r\n\r\n")
        assert status == 404
    async with socket(api), socket(api):
        pass


@pytest.mark.parametrize("request_", [b"GET /sse?channel=log HTTP/1.1\r\nhost: x\r\n\r\n", REQUEST])
async def test_who_is_gone_before_the_answer_holds_nothing_and_leaves_no_line(
    api: Stand, request_: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    for pause in (0.0, 0.0, 0.001, 0.002, 0.005):
        async with raw(api.port, request_):
            await asyncio.sleep(pause)
    await empty(api)
    await eventually(lambda: not api.gateway.quotas._held, within=30, reason="all was given back")
    assert not caplog.records


async def test_events_reach_who_waits_for_a_subscription_in_turn(api: Stand) -> None:
    async with socket(api) as peer:
        for id, channel in enumerate(("log", "mute", "few/1")):
            await peer.send(json.dumps({"id": id, "subscribe": {"channel": channel}}))
        found: list[int] = []
        while len(found) < 3:
            answer = json.loads(await peer.recv())
            found += [answer["id"]] if "id" in answer else []
        assert found == [0, 1, 2]
