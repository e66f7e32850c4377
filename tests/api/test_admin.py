"""What operators see and do over HTTP, with a credential of their own."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from gateway import Command, handles
from gateway.app import Gateway
from gateway.commands import Status
from gateway.config import AdminConfig, CommandConfig
from tests.servers import Broker
from tests.worker.stage import STREAM, TYPE, Stage, config_of

pytestmark = pytest.mark.anyio

TOKENS = ("first-operator", "second-operator")
PATHS = [
    ("GET", "/admin/dead-letters"),
    ("GET", "/admin/dead-letters/x"),
    ("DELETE", "/admin/dead-letters/x"),
    ("POST", "/admin/dead-letters/x/redrive"),
    ("GET", "/admin/streams"),
]


@handles(TYPE, retries=1, backoff=0)
async def fail(command: Command[Any]) -> None:
    raise LookupError(f"no {command.data}")


@pytest.fixture
def stage(broker: Broker) -> Stage:
    config = msgspec.structs.replace(config_of(broker.config), admin=AdminConfig(tokens=TOKENS))
    return Stage(config, broker.clients)


def client(stage: Stage, token: str | None = TOKENS[1]) -> httpx.AsyncClient:
    """A client of an application on the stage's log."""
    app = Gateway(stage.config, stage.policy, stage.broker).app()
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    transport = httpx.ASGITransport(app=app)
    return httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers)


@pytest.fixture
async def admin(stage: Stage) -> AsyncIterator[httpx.AsyncClient]:
    async with client(stage) as admin:
        yield admin


async def bury(stage: Stage, *data: Any, **more: Any) -> list[str]:
    ids = []
    async with stage.working(fail):
        for each in data:
            ids.append(await stage.post(each, **more))
            await stage.outcome(ids[-1])
    return ids


def problem(response: httpx.Response) -> tuple[int, str]:
    """The status and the code of an error, which must be a problem document."""
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["status"] == response.status_code
    return response.status_code, response.json()["code"]


@pytest.mark.parametrize(("method", "path"), PATHS)
async def test_without_a_configured_token_there_is_nothing(
    broker: Broker, method: str, path: str
) -> None:
    stage = Stage(config_of(broker.config), broker.clients)
    async with client(stage) as admin:
        assert problem(await admin.request(method, path)) == (404, "not-found")


@pytest.mark.parametrize(("method", "path"), PATHS)
@pytest.mark.parametrize("token", [None, "", "first-operato", "first-operator, second-operator"])
async def test_who_shows_no_token_or_another_is_not_let_in(
    stage: Stage, method: str, path: str, token: str | None
) -> None:
    async with client(stage, token) as stranger:
        response = await stranger.request(method, path)
    assert problem(response) == (401, "unauthorized")
    assert response.headers["www-authenticate"] == "Bearer"
    assert "operator" not in response.json()["detail"]


async def test_a_token_of_producers_does_not_do(stage: Stage) -> None:
    async with client(stage, "producer") as producer:
        assert problem(await producer.get("/admin/streams")) == (401, "unauthorized")


@pytest.mark.parametrize("token", TOKENS)
async def test_each_configured_token_does(stage: Stage, token: str) -> None:
    async with client(stage, token) as admin:
        assert (await admin.get("/admin/streams")).status_code == 200


async def test_dead_letters_are_listed_in_pages(stage: Stage, admin: httpx.AsyncClient) -> None:
    ids = await bury(stage, *range(5))
    pages: list[list[str]] = []
    after: str | None = ""
    while after is not None:
        page = (await admin.get("/admin/dead-letters", params={"limit": 2, "after": after})).json()
        pages.append([letter["id"] for letter in page["dead_letters"]])
        after = page["next"]
    assert pages == [ids[:2:-1], ids[2:0:-1], ids[:1]]
    response = await admin.get("/admin/dead-letters")
    assert response.headers["cache-control"] == "no-store"
    (letter, *_) = response.json()["dead_letters"]
    assert letter["stream"] == STREAM
    assert letter["error"] == {"type": "LookupError", "message": "no 4", "traceback": ""}
    assert "command" not in letter


async def test_dead_letters_are_filtered(stage: Stage, admin: httpx.AsyncClient) -> None:
    await bury(stage, 1)
    (undone,) = await bury(stage, 2, type="undo")
    for wanted, expected in (
        ({"type": "undo"}, [undone]),
        ({"reason": "no-handler", "stream": STREAM}, [undone]),
        ({"stream": "other"}, []),
    ):
        found = (await admin.get("/admin/dead-letters", params=wanted)).json()
        assert [letter["id"] for letter in found["dead_letters"]] == expected


@pytest.mark.parametrize(
    "query", [{"limit": "0"}, {"limit": "many"}, {"after": "(1-1"}, {"reason": "bad-mood"}]
)
async def test_a_list_that_cannot_be_is_a_bad_request(
    admin: httpx.AsyncClient, query: dict[str, str]
) -> None:
    response = await admin.get("/admin/dead-letters", params=query)
    assert problem(response) == (400, "bad-request")
    assert "expected" in response.json()["detail"]


async def test_anybodys_command_is_shown_with_its_owner(
    stage: Stage, admin: httpx.AsyncClient
) -> None:
    id = await stage.post()
    found = (await admin.get(f"/admin/commands/{id}")).json()
    assert (found["id"], found["status"], found["owner"]) == (id, "accepted", None)
    assert problem(await admin.get("/admin/commands/x")) == (404, "unknown-command")


async def test_one_is_shown_with_its_command_and_every_attempt(
    stage: Stage, admin: httpx.AsyncClient
) -> None:
    (id,) = await bury(stage, {"a": 1}, key="k", traceparent="00-1-2-01", authid="u-1")
    letter = (await admin.get(f"/admin/dead-letters/{id}")).json()
    assert [each["attempt"] for each in letter["failures"]] == [1, 2]
    assert "in fail" in letter["error"]["traceback"]
    assert letter["command"]["data"] == {"a": 1}
    assert letter["command"]["traceparent"] == "00-1-2-01"
    assert letter["command"]["authid"] == "u-1"


async def test_one_is_redriven_once(stage: Stage, admin: httpx.AsyncClient) -> None:
    (id,) = await bury(stage, 1)
    response = await admin.post(f"/admin/dead-letters/{id}/redrive")
    assert response.status_code == 202
    assert response.headers["location"] == f"/commands/{id}"
    assert response.json()["status"] == "accepted"
    assert (await admin.get(f"/commands/{id}")).json()["attempts"] == 2
    again = await admin.post(f"/admin/dead-letters/{id}/redrive")
    assert problem(again) == (404, "unknown-dead-letter")
    assert await stage.backlog() == 1


async def test_one_whose_stream_is_gone_is_redriven_to_another(
    stage: Stage, broker: Broker
) -> None:
    (id,) = await bury(stage, 1)
    command = CommandConfig(path="/do", type=TYPE, stream="other")
    later = Stage(msgspec.structs.replace(stage.config, commands=[command]), broker.clients)
    async with client(later) as admin:
        path = f"/admin/dead-letters/{id}/redrive"
        assert problem(await admin.post(path)) == (409, "cannot-redrive")
        assert (await admin.post(path, params={"stream": "other"})).status_code == 202
        listed = (await admin.get("/admin/streams")).json()["streams"]
    assert [(each["name"], each["backlog"]) for each in listed] == [("other", 1), (STREAM, 0)]


async def test_one_is_discarded_for_good(stage: Stage, admin: httpx.AsyncClient) -> None:
    (id,) = await bury(stage, 1)
    response = await admin.delete(f"/admin/dead-letters/{id}")
    assert (response.status_code, response.content) == (204, b"")
    for method in ("GET", "DELETE"):
        response = await admin.request(method, f"/admin/dead-letters/{id}")
        assert problem(response) == (404, "unknown-dead-letter")
    status = await stage.status(id)
    assert status is not None
    assert status.status is Status.DEAD_LETTERED


async def test_the_streams_are_told_with_what_waits(stage: Stage, admin: httpx.AsyncClient) -> None:
    await bury(stage, 1, 2)
    await stage.post()
    await stage.broker.events.join("here")
    figures = (await admin.get("/admin/streams")).json()
    assert figures == {
        "streams": [
            {
                "name": STREAM,
                "partitions": 16,
                "backlog": 1,
                "pending": 0,
                "workers": 0,
                "dead_letters": 2,
            }
        ],
        "nodes": [{"name": "here", "lag": 0}],
        "dead_letters": 2,
    }


async def test_the_metrics_tell_of_the_log(stage: Stage, admin: httpx.AsyncClient) -> None:
    await bury(stage, 1, 2)
    await stage.post()
    metrics = (await admin.get("/metrics")).text
    named = f'{{stream="{STREAM}"}}'
    for line in ("backlog", 1.0), ("pending", 0.0), ("workers", 0.0), ("dead_letters", 2.0):
        assert f"gateway_{line[0]}{named} {line[1]}\n" in metrics
    await stage.post()  # they are not read again for every request
    assert f"gateway_backlog{named} 1.0\n" in (await admin.get("/metrics")).text


async def test_every_metric_is_in_the_readme_and_no_other(
    stage: Stage, admin: httpx.AsyncClient
) -> None:
    admin.headers["authorization"] = f"Bearer {TOKENS[0]}"
    told = re.findall(r"^# TYPE (\w+) ", (await admin.get("/metrics")).text, re.MULTILINE)
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    named = re.findall(r"^\| `(gateway_\w+)` \|", readme, re.MULTILINE)
    assert sorted(named) == sorted(each for each in told if not each.endswith("_created"))
