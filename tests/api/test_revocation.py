"""Operators over HTTP: what they may say about blocks and connections, and who they are."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.broker import blocklist
from gateway.config import AdminConfig
from tests.api.conftest import config_of
from tests.api.stand import Stand, problem, standing
from tests.servers import RunningServer, eventually

pytestmark = pytest.mark.anyio

OPERATOR = {"authorization": "Bearer operator"}


@pytest.fixture(scope="module")
async def api(
    valkey: RunningServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stand]:
    """A gateway that has operators."""
    config = config_of(valkey, tmp_path_factory.mktemp("api"))
    config = msgspec.structs.replace(config, admin=AdminConfig(tokens=["operator"]))
    async with standing(config) as stand:
        yield stand


async def block(api: Stand, wish: Any) -> Any:
    return await api.http.post("/admin/blocks", json=wish, headers=OPERATOR)


async def test_a_block_is_told_as_it_is_kept_and_can_be_lifted(api: Stand) -> None:
    added = await block(api, {"principal": "ann", "for": "1h", "reason": "spam"})
    assert added.status_code == 201
    told = added.json()
    assert added.headers["location"] == f"/admin/blocks/{told['id']}"
    assert (told["principal"], told["reason"]) == ("ann", "spam")
    assert told["created_at"] < told["until"]
    listed = await api.http.get("/admin/blocks", headers=OPERATOR)
    assert listed.json() == {"blocks": [told]}
    assert listed.headers["cache-control"] == "no-store"
    for status in (204, 404):
        lifted = await api.http.delete(added.headers["location"], headers=OPERATOR)
        assert lifted.status_code == status
    problem(lifted, 404, "unknown-block")


async def test_a_second_block_of_the_same_replaces_the_first(api: Stand) -> None:
    first = (await block(api, {"token_id": "t", "for": 60})).json()
    second = (await block(api, {"token_id": "t"})).json()
    assert second["id"] == first["id"]
    assert second["until"] is None
    listed = (await api.http.get("/admin/blocks", headers=OPERATOR)).json()
    assert listed == {"blocks": [second]}
    await api.http.delete(f"/admin/blocks/{second['id']}", headers=OPERATOR)


@pytest.mark.parametrize(
    "wish",
    [
        {},
        [],
        {"principal": "ann", "token_id": "t"},
        {"principal": ""},
        {"principal": "a" * 1025},
        {"principal": "ann", "reason": "r" * 1025},
        {"principal": "ann", "for": "soon"},
        {"principal": "ann", "for": "0s"},
        {"principal": "ann", "for": -1},
        {"principal": "ann", "until": "tomorrow"},
        {"principal": 1},
    ],
)
async def test_what_is_no_block_is_refused(api: Stand, wish: Any) -> None:
    problem(await block(api, wish), 400, "bad-request")


async def test_there_is_a_bound_and_what_is_over_does_not_count(
    api: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocklist, "MAX_BLOCKS", 2)
    ids = [(await block(api, {"principal": name})).json()["id"] for name in ("a", "b")]
    problem(await block(api, {"principal": "c"}), 409, "too-many-blocks")
    assert (await block(api, {"principal": "a", "for": "1ms"})).status_code == 201
    added = await block(api, {"principal": "c"})
    assert added.status_code == 201
    for id in (ids[1], added.json()["id"]):
        await api.http.delete(f"/admin/blocks/{id}", headers=OPERATOR)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/admin/blocks"),
        ("POST", "/admin/blocks"),
        ("DELETE", "/admin/blocks/x"),
        ("GET", "/admin/connections"),
        ("DELETE", "/admin/connections/x-1"),
    ],
)
async def test_it_is_for_operators_alone(
    api: Stand, valkey: RunningServer, tmp_path: Path, method: str, path: str
) -> None:
    for headers in ({}, {"authorization": "Bearer guess"}):
        problem(await api.http.request(method, path, headers=headers), 401, "unauthorized")
    async with standing(config_of(valkey, tmp_path)) as without:
        nowhere = await without.http.request(method, path, headers=OPERATOR)
        assert nowhere.status_code == 404


async def test_a_process_does_not_count_its_own_listeners_as_connections(api: Stand) -> None:
    waiting = asyncio.create_task(api.post("/unheard", "{}", prefer="wait=2"))
    hub = api.gateway.hub
    await eventually(lambda: len(hub) == 1, within=30, reason="a request waits for its command")
    answer = await api.http.get("/admin/connections", headers=OPERATOR)
    assert len(hub) == 1
    assert answer.json() == {
        "node": api.gateway.revocation.node,
        "total": 0,
        "connections": [],
    }
    await waiting


async def test_while_everybody_is_anonymous_there_are_no_tickets(api: Stand) -> None:
    problem(await api.http.post("/tickets"), 401, "unauthorized")
    answer = await api.http.get("/channels/log/history", params={"ticket": "any"})
    assert answer.status_code == 200
