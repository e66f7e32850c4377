"""The secured example, as its first lines say to begin with it."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect

from tests.cli.terminal import ROOT, run
from tests.cli.test_run import Ready, ready

ADMIN = "admin-admin-admin"


@pytest.fixture
async def keys(short_dir: Path) -> dict[str, str]:
    """Everybody's key. The example is in the folder then."""
    shutil.copytree(
        ROOT / "examples" / "secured",
        short_dir,
        dirs_exist_ok=True,
        ignore=shutil.ignore_patterns("__pycache__", ".gateway", "api-keys.toml"),
    )
    made = {}
    for name, *options in (("shop", "--role", "shop"), ("anna", "--expires", "90d"), ("bert",)):
        result = await run("token", "create", name, *options, cwd=short_dir)
        assert result.code == 0
        made[name] = result.out.strip()
    return made


@pytest.fixture
async def parcels(short_dir: Path, keys: dict[str, str]) -> AsyncIterator[Ready]:
    checked = await run("check", cwd=short_dir)
    assert (checked.code, checked.lines[0]) == (0, "gateway.toml is fine.")
    shown = {"GATEWAY_ADMIN_TOKENS": ADMIN}
    async with ready("run", "--port", "0", cwd=short_dir, env=shown) as gateway:
        yield gateway


async def test_everybody_may_do_what_the_rules_say_and_no_more(
    parcels: Ready, keys: dict[str, str]
) -> None:
    async with httpx.AsyncClient(base_url=parcels.url, timeout=30) as http:

        async def send(who: str | None, path: str, data: dict[str, Any]) -> httpx.Response:
            return await http.post(path, json=data, headers={**_shows(keys, who), **WAITING})

        async def read(who: str | None, path: str) -> httpx.Response:
            return await http.get(path, headers=_shows(keys, who))

        move = {"recipient": "anna", "place": "Hamburg"}
        assert (await send(None, "/parcels/p-1/moves", move)).status_code == 401
        assert (await send("anna", "/parcels/p-1/moves", move)).status_code == 403
        assert (await send("shop", "/parcels/p-1/moves", move)).json()["status"] == "succeeded"
        note = {"recipient": "anna", "text": "Leave it with the neighbours"}
        assert (await send("bert", "/parcels/p-1/notes", note)).status_code == 403
        assert (await send("anna", "/parcels/p-1/notes", note)).json()["status"] == "succeeded"

        annas = "/channels/parcels:anna/history"
        assert (await read("bert", annas)).status_code == 403
        moved, noted = (await read("anna", annas)).json()
        assert moved["data"] == {"parcel": "p-1", **move}
        assert (noted["type"], noted["data"]["by"]) == ("parcel.noted", "anna")
        assert (await read("anna", "/channels/depot/history")).status_code == 403
        assert len((await read("shop", "/channels/depot/history")).json()) == 2

        assert (await read("shop", "/admin/streams")).status_code == 401
        operator = {"authorization": f"Bearer {ADMIN}"}
        assert (await http.get("/admin/streams", headers=operator)).status_code == 200


async def test_who_is_too_quick_is_told_when_to_come_back(
    parcels: Ready, keys: dict[str, str]
) -> None:
    note = {"recipient": "anna", "text": "?"}
    async with httpx.AsyncClient(base_url=parcels.url, timeout=30) as http:
        answers = [
            await http.post("/parcels/p-2/notes", json=note, headers=_shows(keys, "anna"))
            for _ in range(2)
        ]
    assert [answer.status_code for answer in answers] == [202, 429]
    assert 0 < int(answers[1].headers["retry-after"]) <= 7
    assert answers[1].json()["limit"] == "notes"


async def test_what_a_key_opened_ends_with_the_key(
    parcels: Ready, keys: dict[str, str], short_dir: Path
) -> None:
    socket = f"{parcels.url.replace('http', 'ws')}/ws?channel=parcels:anna"
    url = f"{parcels.url}/sse?channel=parcels:anna"
    async with (
        connect(socket, additional_headers=_shows(keys, "anna"), proxy=None) as annas,
        connect(socket, additional_headers=_shows(keys, "shop"), proxy=None) as shops,
        httpx.AsyncClient(timeout=30) as http,
        http.stream("GET", url, headers=_shows(keys, "anna")) as stream,
    ):
        assert stream.headers["connection"] == "close"  # nothing can follow on it
        assert (await run("token", "revoke", "anna", cwd=short_dir)).code == 0
        assert '"code":4003' in "".join([line async for line in stream.aiter_lines()])
        await asyncio.wait_for(annas.wait_closed(), 30)
        assert annas.close_code == 4003
        assert (await http.get(url, headers=_shows(keys, "anna"))).status_code == 401
        await asyncio.wait_for(await shops.ping(), 30)


async def test_what_the_shop_publishes_reaches_whom_it_is_for(
    parcels: Ready, keys: dict[str, str], tmp_path: Path
) -> None:
    for name, key in keys.items():
        (tmp_path / name).write_text(key)
    where = ("--url", parcels.url, "--token")
    event = ("publish", "parcel.lost", '{"parcel":"p-1","recipient":"anna"}')
    assert (await run(*event, *where, f"@{tmp_path / 'bert'}")).code == 1
    assert (await run(*event, *where, f"@{tmp_path / 'shop'}")).code == 0
    follow = ("subscribe", "parcels:anna", "--after", "earliest", "--until", "1", "--json")
    heard = await run(*follow, *where, f"@{tmp_path / 'anna'}")
    assert json.loads(heard.out)["type"] == "parcel.lost"
    refused = await run(*follow, *where, f"@{tmp_path / 'bert'}")
    assert refused.code == 1
    assert "not allowed to subscribe" in refused.err


WAITING = {"prefer": "wait=30"}


def _shows(keys: dict[str, str], who: str | None) -> dict[str, str]:
    return {} if who is None else {"authorization": f"Bearer {keys[who]}"}
