"""`gateway block`: at the broker, and by way of a gateway that runs."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import msgspec
import pytest

from gateway.__main__ import main
from gateway.config import AdminConfig
from tests.api.conftest import config_of
from tests.api.stand import Stand, standing
from tests.identities import Register, Secured
from tests.servers import RunningServer, eventually

pytestmark = pytest.mark.anyio

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def register() -> Register:
    return Register()


@pytest.fixture
async def stand(
    valkey: RunningServer, tmp_path: Path, register: Register, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Stand]:
    """A gateway with authentication, and a folder with its configuration, in which the test is."""
    config = config_of(valkey, tmp_path)
    config = msgspec.structs.replace(config, auth=Secured(), admin=AdminConfig(tokens=["operator"]))
    broker = f'[broker]\nurl = "{config.broker.url}"\nnamespace = "{config.broker.namespace}"\n'
    (tmp_path / "gateway.toml").write_text(broker)
    monkeypatch.chdir(tmp_path)
    async with standing(config, sources=[register]) as stand:
        yield stand


async def block(*arguments: str) -> int:
    """Run the command in this process, with an event loop of its own."""
    return await asyncio.to_thread(main, ["block", *arguments])


@pytest.fixture(params=["broker", "url"])
def where(request: pytest.FixtureRequest, stand: Stand) -> list[str]:
    """The options that say where to make the change."""
    if request.param == "broker":
        return []
    return ["--url", f"http://127.0.0.1:{stand.port}", "--token", "operator"]


async def asks(stand: Stand, token: str) -> httpx.Response:
    return await stand.http.post("/tickets", headers={"Authorization": f"Bearer {token}"})


async def answered(stand: Stand, token: str, status: int) -> None:
    async def so() -> bool:
        return (await asks(stand, token)).status_code == status

    await eventually(so, within=30, reason=f"the answer was {status}")


async def test_who_is_blocked_is_shut_out_until_the_block_is_removed(
    stand: Stand, register: Register, where: list[str], capsys: Captured
) -> None:
    token = register.issue("ann")
    assert await block("add", "ann", "--for", "1h", "--reason", "sp\x1bam", *where) == 0
    id = capsys.readouterr().out.strip()
    await answered(stand, token, 403)
    assert await block("list", *where) == 0
    out, err = capsys.readouterr()
    head, row = out.splitlines()
    assert head.split() == ["ID", "WHO", "UNTIL", "SINCE", "REASON"]
    assert row.split()[:2] == [id, "ann"]
    assert row.endswith(r"sp\x1bam")
    assert err == "1 block.\n"
    assert await block("list", "--json", *where) == 0
    (told,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert (told["id"], told["principal"], told["reason"]) == (id, "ann", "sp\x1bam")
    assert await block("remove", "ann", *where) == 0
    assert capsys.readouterr().out.strip() == id
    await answered(stand, token, 201)
    assert await block("remove", id, *where) == 1
    assert f"there is no block of {id}" in capsys.readouterr().err


async def test_one_credential_alone_is_revoked(
    stand: Stand, register: Register, where: list[str], capsys: Captured
) -> None:
    lost, other = register.issue("ann"), register.issue("ann")
    name = register.of(lost).token_id
    assert await block("add", "--token-id", name, *where) == 0
    await answered(stand, lost, 401)
    assert (await asks(stand, other)).status_code == 201
    assert await block("list", *where) == 0
    assert f"token {name}  for ever " in capsys.readouterr().out
    assert await block("remove", "--token-id", name, *where) == 0
    await answered(stand, lost, 201)


@pytest.mark.parametrize(
    "arguments",
    [
        ["add"],
        ["add", "ann", "--token-id", "x"],
        ["add", "ann", "--for", "soon"],
        ["add", "ann", "--for", "0s"],
        ["remove"],
        ["remove", "ann", "--token-id", "x"],
        ["list", "--token", "operator"],
        ["list", "--url", "nowhere"],
    ],
)
async def test_what_makes_no_sense_is_wrong_usage(stand: Stand, arguments: list[str]) -> None:
    assert await block(*arguments) == 2


async def test_who_is_no_operator_is_told_so(stand: Stand, capsys: Captured) -> None:
    wrong = ["--url", f"http://127.0.0.1:{stand.port}", "--token", "guess"]
    assert await block("list", *wrong) == 1
    assert "[admin] tokens" in capsys.readouterr().err
    assert await block("list", *wrong[:2]) == 1
    assert "(unauthorized); give one with --token" in capsys.readouterr().err
