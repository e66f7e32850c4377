"""What every answer carries, for which hosts requests are taken, and who sees the metrics."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from gateway.config import AdminConfig
from tests.api.conftest import config_of
from tests.api.stand import Stand, problem, standing
from tests.servers import RunningServer


@pytest.mark.parametrize(
    "path",
    ["/healthz", "/readyz", "/metrics", "/nope", "/orders", "/commands/x", "/events", "/ws"],
)
async def test_no_answer_can_be_taken_for_a_page(api: Stand, path: str) -> None:
    headers = (await api.http.get(path)).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["cache-control"] == "no-store"
    assert "strict-transport-security" not in headers
    assert "server" not in headers


@pytest.mark.parametrize(
    ("range", "status", "code"),
    [
        ("bytes=zz", 400, "bad-request"),
        ("bytes=99999999-", 416, "requested-range-not-satisfiable"),
        ("lines=1-2", 400, "bad-request"),
    ],
)
async def test_errors_of_files_are_problem_documents_too(
    api: Stand, range: str, status: int, code: str
) -> None:
    answer = await api.http.get("/static/gateway.js", headers={"range": range})
    problem(answer, status, code)
    assert ("content-range" in answer.headers) == (status == 416)


async def test_health_tells_a_stranger_nothing_but_itself(api: Stand) -> None:
    assert (await api.http.get("/healthz")).json() == {"status": "ok"}
    ready = (await api.http.get("/readyz")).json()
    assert ready == {"status": "ready", "broker": "connected", "circuit": "closed"}


@asynccontextmanager
async def gateway(valkey: RunningServer, folder: Path, **changes: object) -> AsyncIterator[Stand]:
    settings = {name: changes.pop(name) for name in ("hosts",) if name in changes}
    config = msgspec.structs.replace(config_of(valkey, folder, **settings), **changes)
    async with standing(config) as stand:
        yield stand


async def test_requests_are_taken_for_the_names_that_are_listed_alone(
    valkey: RunningServer, tmp_path: Path
) -> None:
    async with gateway(valkey, tmp_path, hosts=["gateway.example", "[::1]"]) as api:
        for host in ("gateway.example", "Gateway.Example:8443", "[::1]:80"):
            assert (await api.post("/unheard", b"{}", host=host)).status_code == 202
        for host in ("rebound.example", "gateway.example.evil", "127.0.0.1", "[::2]:80"):
            problem(await api.post("/unheard", b"{}", host=host), 421, "misdirected-request")
            assert (await api.http.get("/healthz", headers={"host": host})).status_code == 200
        target = b"GET http://rebound.example/ HTTP/1.1\r\nHost: gateway.example\r\n\r\n"
        status, _, _ = await api.raw(target)
        assert status == 421  # the target counts, not the header


@pytest.mark.parametrize(
    ("access", "alone", "operator"),
    [
        (AdminConfig(), 200, 200),
        (AdminConfig(tokens=["warden"]), 401, 200),
        (AdminConfig(tokens=["warden"], metrics="anybody"), 200, 200),
        (AdminConfig(tokens=["warden"], metrics="nobody"), 404, 404),
        (AdminConfig(metrics="operators"), 401, 401),
    ],
)
async def test_the_metrics_are_for_whom_they_are_meant(
    valkey: RunningServer, tmp_path: Path, access: AdminConfig, alone: int, operator: int
) -> None:
    async with gateway(valkey, tmp_path, admin=access) as api:
        assert (await api.http.get("/metrics")).status_code == alone
        token = {"authorization": "Bearer warden"}
        assert (await api.http.get("/metrics", headers=token)).status_code == operator
        wrong = {"authorization": "Bearer warde"}
        assert (await api.http.get("/metrics", headers=wrong)).status_code == alone


async def test_no_address_that_a_stranger_names_is_asked(api: Stand) -> None:
    """No setting but the broker's and the providers' URLs makes the gateway connect (CWE-918)."""
    visitors: list[object] = []
    server = await asyncio.start_server(lambda *both: visitors.append(both), "127.0.0.1", 0)
    here = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/x"
    async with server:
        event = {"specversion": "1.0", "id": here, "source": here, "type": "t", "dataschema": here}
        data = {"$schema": here, "$ref": here, "$id": here, "customer": here, "qty": 1}
        headers = {
            "authorization": "Bearer sesame",
            "content-type": "application/cloudevents+json",
            "referer": here,
            "link": f"<{here}>; rel=preload",
        }
        answer = await api.http.post("/events", json=event | {"data": data}, headers=headers)
        assert answer.status_code == 202, answer.text
        answer = await api.http.post("/orders", json=data, headers={"prefer": f"wait=1, x={here}"})
        assert answer.status_code in (200, 202), answer.text
    assert visitors == []
