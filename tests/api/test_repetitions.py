"""Requests that are sent again, and those that there is no room for: what their senders hear."""

import asyncio
import json
import secrets
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect

from gateway.commands import Durability, Priority
from gateway.config import BrokerConfig, CommandConfig, Config, RouteConfig, ServerConfig
from tests.api.conftest import place
from tests.api.stand import Stand, problem, standing
from tests.servers import RunningServer

ORDER = b'{"customer":"c-19","qty":2}'


async def order(api: Stand, key: str, body: bytes = ORDER, **headers: str) -> httpx.Response:
    return await api.post("/orders", body, idempotency_key=key, **headers)


async def test_a_repeated_command_has_the_first_answer(api: Stand) -> None:
    first = await order(api, "k-1")
    again = await order(api, "k-1", b'{"qty":2, "customer":"c-19"}')
    assert (first.status_code, again.status_code) == (202, 202)
    assert again.content == first.content
    assert again.headers["location"] == first.headers["location"]
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"


async def test_a_key_in_quotes_is_the_same_key(api: Stand) -> None:
    first = await order(api, "k-2")
    assert (await order(api, '"k-2"')).json() == first.json()


async def test_who_repeats_a_command_and_waits_is_given_its_outcome(api: Stand) -> None:
    first = await order(api, "k-3")
    again = await order(api, "k-3", prefer="wait=20")
    assert (again.status_code, again.json()["status"]) == (200, "succeeded")
    assert again.json()["id"] == first.json()["id"]
    assert again.json()["attempts"] == 1
    late = await order(api, "k-3", prefer="wait=20")
    assert late.json() == again.json()


async def test_many_twins_at_once_are_one_command_and_all_hear_its_outcome(api: Stand) -> None:
    answers = await asyncio.gather(*(order(api, "k-4", prefer="wait=20") for _ in range(20)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert sum("idempotency-replayed" not in answer.headers for answer in answers) == 1


@pytest.mark.parametrize(
    ("path", "body"), [("/orders", b'{"customer":"c-20","qty":2}'), ("/echo", ORDER)]
)
async def test_another_command_with_a_known_key_is_refused(
    api: Stand, path: str, body: bytes
) -> None:
    await order(api, "k-5")
    answer = await api.post(path, body, idempotency_key="k-5")
    assert "expected the same command as before" in problem(answer, 422, "key-reused")


async def test_a_refused_command_leaves_its_key_free(api: Stand) -> None:
    assert (await order(api, "k-6", b'{"customer":1}')).status_code == 422
    assert (await order(api, "k-6")).status_code == 202


@pytest.mark.parametrize("key", ['"unclosed', "a b", "", "k" * 256, '"a\\b"'])
async def test_a_key_that_is_none_is_refused(api: Stand, key: str) -> None:
    assert "expected " in problem(await order(api, key), 400, "bad-request")


async def test_two_keys_are_refused(api: Stand) -> None:
    headers = [
        ("content-type", "application/json"),
        ("idempotency-key", "a"),
        ("idempotency-key", "b"),
    ]
    answer = await api.http.post("/orders", content=ORDER, headers=headers)
    assert "expected one Idempotency-Key but got 'a, b'" in problem(answer, 400, "bad-request")


async def test_a_key_counts_on_either_door(api: Stand) -> None:
    first = (await order(api, "k-7")).json()["id"]
    command: dict[str, Any] = {
        "path": "/orders",
        "data": json.loads(ORDER),
        "idempotency_key": "k-7",
    }
    async with connect(f"ws://127.0.0.1:{api.port}/ws", proxy=None) as socket:
        await socket.send(json.dumps({"id": 1, "command": command}))
        assert json.loads(await socket.recv()) == {"id": 1, "accepted": {"id": first}}
        command["data"]["qty"] = 3
        await socket.send(json.dumps({"id": 2, "command": command}))
        assert json.loads(await socket.recv())["error"]["code"] == "key-reused"


async def test_a_repeated_event_is_published_once(api: Stand) -> None:
    event = {
        "specversion": "1.0",
        "id": "twice",
        "source": "/t",
        "type": "t",
        "channel": "few/twice",
    }
    headers = {"authorization": "Bearer sesame", "content-type": "application/cloudevents+json"}
    answers = [
        await api.http.post("/events", content=json.dumps(event), headers=headers) for _ in range(3)
    ]
    assert [answer.status_code for answer in answers] == [202] * 3
    assert [answer.json() for answer in answers] == [{"ids": ["twice"]}] * 3
    history = await api.http.get("/channels/few/twice/history")
    assert [each["id"] for each in history.json()] == ["twice"]
    other = json.dumps(event | {"data": 1})
    answer = await api.http.post("/events", content=other, headers=headers)
    assert "expected event 1 to be the same" in problem(answer, 422, "key-reused")


# --- No room


def narrow(server: RunningServer, **broker: Any) -> Config:
    """Commands of every priority and durability, of which few may wait."""
    namespace = f"narrow-{secrets.token_hex(4)}"
    return Config(
        broker=BrokerConfig(url=server.url, namespace=namespace, partitions=1, **broker),
        server=ServerConfig(),
        commands=[
            CommandConfig(path="/plain", type="none", stream="plain"),
            CommandConfig(path="/low", type="none", stream="low", priority=Priority.LOW),
            CommandConfig(
                path="/routed",
                type="none",
                stream="routed",
                routes=[RouteConfig(when="data.bulk", stream="bulk", priority=Priority.LOW)],
            ),
            CommandConfig(
                path="/memory", type="order.place", stream="m", durability=Durability.MEMORY
            ),
            CommandConfig(
                path="/fsync", type="order.place", stream="f", durability=Durability.FSYNC
            ),
        ],
    )


async def test_a_full_stream_refuses_and_loses_nothing(valkey: RunningServer) -> None:
    async with standing(narrow(valkey, max_backlog=5)) as stand:
        answers = await asyncio.gather(*(stand.post("/plain", b"{}") for _ in range(8)))
        assert sorted(answer.status_code for answer in answers) == [202] * 5 + [503] * 3
        refused = next(answer for answer in answers if answer.status_code == 503)
        assert "5 commands wait" in problem(refused, 503, "stream-full")
        assert refused.headers["retry-after"] == "2"
        for answer in answers:
            if answer.status_code == 202:
                status = await stand.http.get(answer.headers["location"])
                assert status.json()["status"] == "accepted"
        metrics = (await stand.http.get("/metrics")).text
        assert 'gateway_refused_total{code="stream-full"} 3.0' in metrics
        assert 'gateway_commands_accepted_total{type="none"} 5.0' in metrics


async def test_low_priority_is_refused_first(valkey: RunningServer) -> None:
    async with standing(narrow(valkey, max_in_flight=4)) as stand:
        admission = stand.gateway.admission
        async with admission.admitted(), admission.admitted():
            answer = await stand.post("/low", b"{}")
            assert "of low priority" in problem(answer, 503, "overloaded")
            assert answer.headers["retry-after"] == "1"
            bulky = await stand.post("/routed", b'{"bulk":true}')
            assert "of low priority" in problem(bulky, 503, "overloaded")
            assert (await stand.post("/plain", b"{}")).status_code == 202
            assert (await stand.post("/routed", b'{"bulk":false}')).status_code == 202
        assert (await stand.post("/low", b"{}")).status_code == 202


# --- Durability


@pytest.mark.parametrize("path", ["/memory", "/fsync"])
async def test_commands_of_every_durability_are_carried_out(
    valkey: RunningServer, path: str
) -> None:
    async with standing(narrow(valkey), place) as stand:
        answers = await asyncio.gather(
            *(stand.post(path, ORDER, prefer="wait=20") for _ in range(10))
        )
    assert [answer.json()["status"] for answer in answers] == ["succeeded"] * 10


async def test_a_command_in_memory_is_there_after_a_shutdown_in_good_order(
    valkey: RunningServer,
) -> None:
    config = narrow(valkey)
    async with standing(config) as stand:
        answers = await asyncio.gather(*(stand.post("/memory", ORDER) for _ in range(50)))
        ids = [answer.json()["id"] for answer in answers]
    async with standing(config) as stand:
        statuses = [(await stand.http.get(f"/commands/{id}")).json()["status"] for id in ids]
    assert statuses == ["accepted"] * 50


async def test_fsync_is_refused_at_the_start_where_the_server_has_none(
    redis7: RunningServer,
) -> None:
    with pytest.raises(BaseException, match=r"needs Redis 7\.2 or newer or Valkey"):
        async with standing(narrow(redis7)):
            pass
