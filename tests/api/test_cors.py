"""Pages of other origins: which may ask, which may read, and what they may read."""

import json
from collections.abc import AsyncIterator

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin

from tests.api.conftest import config_of
from tests.api.stand import Stand, problem, standing
from tests.servers import RunningServer

APP = "https://app.example"


@pytest.fixture(scope="module")
async def api(
    valkey: RunningServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stand]:
    config = config_of(valkey, tmp_path_factory.mktemp("cors"), origins=[APP])
    async with standing(config) as stand:
        yield stand


def check_readable(answer: httpx.Response) -> None:
    assert answer.headers["access-control-allow-origin"] == APP
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert "origin" in answer.headers["vary"].lower()
    exposed = answer.headers["access-control-expose-headers"].split(", ")
    assert {"Location", "Gateway-Position", "Retry-After", "RateLimit"} <= set(exposed)


async def test_a_page_that_is_listed_may_ask_and_read_refusals_too(api: Stand) -> None:
    accepted = await api.post("/unheard", b"{}", origin=APP)
    assert accepted.status_code == 202
    check_readable(accepted)
    for path, status in (("/nope", 404), ("/orders", 405), ("/sse", 400), ("/healthz", 200)):
        answer = await api.http.get(path, headers={"origin": APP})
        assert answer.status_code == status
        check_readable(answer)


async def test_a_page_that_is_listed_may_follow_an_event_stream(api: Stand) -> None:
    async with api.http.stream("GET", "/sse?channel=log", headers={"origin": APP}) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/event-stream"
        check_readable(answer)


async def test_a_mistake_of_ours_can_be_read_there_as_well(
    api: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(api.gateway.dispatcher, "status", fail)
    answer = await api.http.get("/commands/x", headers={"origin": APP})
    problem(answer, 500, "internal")
    check_readable(answer)


async def test_a_browser_that_asks_beforehand_is_told(api: Stand) -> None:
    wanted = "authorization,content-type,idempotency-key, x-any"
    answer = await api.http.options(
        "/orders",
        headers={
            "origin": APP,
            "access-control-request-method": "POST",
            "access-control-request-headers": wanted,
        },
    )
    assert (answer.status_code, answer.content) == (204, b"")
    check_readable(answer)
    assert "POST" in answer.headers["access-control-allow-methods"].split(", ")
    assert answer.headers["access-control-allow-headers"] == wanted
    assert answer.headers["access-control-max-age"] == "7200"


@pytest.mark.parametrize("wanted", ["a b", "x\ty", ",", "x" * 65, ",".join("a" * 51)])
async def test_what_are_no_names_of_headers_is_not_repeated(api: Stand, wanted: str) -> None:
    answer = await api.http.options(
        "/orders",
        headers={
            "origin": APP,
            "access-control-request-method": "POST",
            "access-control-request-headers": wanted,
        },
    )
    assert answer.status_code == 204
    assert "access-control-allow-headers" not in answer.headers


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://app.example", ""])
async def test_any_other_page_is_refused_and_can_read_nothing(api: Stand, origin: str) -> None:
    for path in ("/unheard", "/", "/sse?channel=log"):
        answer = await api.http.get(path, headers={"origin": origin})
        problem(answer, 403, "origin-not-allowed")
        assert "access-control-allow-origin" not in answer.headers
    problem(await api.post("/unheard", b"{}", origin=origin), 403, "origin-not-allowed")


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://app.example"])
async def test_no_other_page_has_a_websocket(api: Stand, origin: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with connect(f"ws://127.0.0.1:{api.port}/ws?channel=log", origin=Origin(origin)):
            pass
    assert refused.value.response.status_code == 403
    assert b"origin-not-allowed" in refused.value.response.body


async def test_the_gateways_own_pages_may_ask(api: Stand) -> None:
    own = f"http://127.0.0.1:{api.port}"
    answer = await api.post("/unheard", b"{}", origin=own)
    assert answer.status_code == 202
    for origin in (own, APP):
        url = f"ws://127.0.0.1:{api.port}/ws?channel=log"
        async with connect(url, origin=Origin(origin)) as socket:
            assert "subscribed" in json.loads(await socket.recv())


async def test_who_is_no_page_is_not_asked_where_it_came_from(api: Stand) -> None:
    answer = await api.post("/unheard", b"{}")
    assert answer.status_code == 202
    assert "access-control-allow-origin" not in answer.headers
    assert answer.headers["vary"] == "Origin"  # a cache must not give this to a page


async def test_where_all_are_allowed_no_browser_shows_its_cookies(
    valkey: RunningServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    config = config_of(valkey, tmp_path_factory.mktemp("all"), origins=["*"])
    async with standing(config) as api:
        for origin in ("https://evil.example", "null"):
            answer = await api.post("/unheard", b"{}", origin=origin)
            assert answer.status_code == 202
            assert answer.headers["access-control-allow-origin"] == "*"
            assert "access-control-allow-credentials" not in answer.headers
