"""Refusals of HTTP itself, and mistakes of ours: problem documents, RFC 9457."""

import asyncio
import json
import logging
from typing import Any

import httpx
import pytest

from gateway import errors
from gateway.api import problems
from tests.api.stand import Stand, problem


@pytest.mark.parametrize(
    "path", ["/nope", "/orders/5", "/healthz/", "/channels/log", "/static", "/*"]
)
async def test_a_path_that_nothing_serves_is_not_found(api: Stand, path: str) -> None:
    detail = problem(await api.http.get(path), 404, "not-found")
    assert detail == f"expected a path that is served here but got {path!r}"


async def test_an_endless_path_is_not_repeated(api: Stand) -> None:
    assert len(problem(await api.http.get("/" + "x" * 5000), 404, "not-found")) < 300


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/orders", "POST"),
        ("PUT", "/echo/x", "POST"),
        ("DELETE", "/events", "POST"),
        ("OPTIONS", "/orders", "POST"),
        ("POST", "/commands/x", "GET, HEAD"),
        ("PATCH", "/channels/log/history", "GET, HEAD"),
        ("POST", "/healthz", "GET, HEAD"),
        ("POST", "/readyz", "GET, HEAD"),
        ("POST", "/sse", "GET, HEAD"),
        ("POST", "/ws", "GET, HEAD"),
        ("POST", "/", "GET, HEAD"),
        ("DELETE", "/static/gateway.js", "GET, HEAD"),
        ("POST", "/demo/", "GET, HEAD"),
    ],
)
async def test_a_wrong_method_is_told_the_right_ones(
    api: Stand, method: str, path: str, allow: str
) -> None:
    answer = await api.http.request(method, path)
    detail = problem(answer, 405, "method-not-allowed")
    assert answer.headers["allow"] == allow
    assert detail == f"expected {allow.replace(', ', ' or ')} but got {method}"


@pytest.mark.parametrize(
    ("path", "status"),
    [("/healthz", 200), ("/", 200), ("/sse?channel=log", 200), ("/nope", 404), ("/orders", 405)],
)
async def test_a_head_request_is_answered_without_a_body(
    api: Stand, path: str, status: int
) -> None:
    answer = await api.http.head(path)
    assert (answer.status_code, answer.content) == (status, b"")


async def test_a_plain_request_for_a_websocket_is_told_to_upgrade(api: Stand) -> None:
    answer = await api.http.get("/ws")
    assert "WebSocket handshake" in problem(answer, 426, "upgrade-required")
    assert answer.headers["upgrade"] == "websocket"


@pytest.mark.parametrize(
    "query", ["", "?channel=", "?channel=a%20b", "?channel=log&last_event_id=x"]
)
async def test_a_wrong_wish_for_an_event_stream_is_malformed(api: Stand, query: str) -> None:
    assert problem(await api.http.get(f"/sse{query}"), 400, "bad-request").startswith("expected ")


async def test_an_event_stream_of_an_unknown_channel_is_not_found(api: Stand) -> None:
    problem(await api.http.get("/sse?channel=log&channel=nope"), 404, "unknown-channel")


def kinds(root: type[errors.GatewayError] = errors.GatewayError) -> list[type[errors.GatewayError]]:
    return [root, *(each for kind in root.__subclasses__() for each in kinds(kind))]


def test_every_refusal_has_a_code_of_its_own_and_a_status_of_http() -> None:
    codes = [kind.code for kind in kinds()]
    assert len(codes) == len(set(codes))
    for kind in kinds():
        assert 400 <= kind.status < 600
        assert kind.code.replace("-", "").isalpha()


# --- Mistakes of ours


class Broken:
    """An application that fails: before it answers, or in the middle of it."""

    def __init__(self, *, begin: bool, error: BaseException) -> None:
        self._begin = begin
        self._error = error

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self._begin:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise self._error


async def ask(app: Any) -> httpx.Response:
    transport = httpx.ASGITransport(problems.LastResort(app))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        return await client.get("/orders")


async def test_a_mistake_of_ours_is_logged_and_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    answer = await ask(Broken(begin=False, error=ZeroDivisionError("secret")))
    detail = problem(answer, 500, "internal")
    assert detail == "this is a mistake in the gateway; it was logged"
    assert "secret" not in answer.text
    (record,) = caplog.records
    assert (record.levelno, record.message) == (logging.ERROR, "GET /orders failed")
    assert record.exc_info
    assert "secret" in str(record.exc_info[1])


async def test_a_mistake_in_the_middle_of_an_answer_cuts_it() -> None:
    with pytest.raises(ZeroDivisionError):
        await ask(Broken(begin=True, error=ZeroDivisionError()))


async def test_a_request_that_is_cut_short_by_the_end_is_told_to_come_again() -> None:
    answer = await ask(Broken(begin=False, error=asyncio.CancelledError()))
    assert "had to stop" in problem(answer, 503, "shutting-down")
    assert answer.headers["retry-after"] == "2"


async def test_after_a_mistake_the_connection_is_of_use(
    api: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(command_id: str) -> None:
        raise ZeroDivisionError

    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    with monkeypatch.context() as patch:
        patch.setattr(api.gateway.dispatcher, "status", fail)
        assert await _get(reader, writer, "/commands/x") == (500, "internal")
    assert await _get(reader, writer, "/commands/x") == (404, "unknown-command")
    writer.close()
    await writer.wait_closed()


async def _get(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str
) -> tuple[int, str]:
    """Ask on a connection that stays open; return the status and the problem's code."""
    writer.write(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)).decode().lower()
    length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
    body = json.loads(await asyncio.wait_for(reader.readexactly(length), 30))
    return int(head.split()[1]), body["code"]
