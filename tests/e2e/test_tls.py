"""A gateway that speaks TLS itself: every door, and a certificate that is renewed meanwhile."""

import asyncio
import json
import shutil
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect

from tests.certificates import Authority
from tests.cli.terminal import Running, run, started
from tests.servers import eventually

PATIENCE = 30.0
CONFIG = """
[server]
port = 0
shutdown = "50s"
heartbeat = "10m"  # what a heartbeat would set going again shall be missed
[tls]
certificate = "tls.crt"
key = "tls.key"
[events]
anonymous = true
[[channels]]
pattern = "orders"
history = { size = 100, ttl = "1h" }
[[feeds]]
type = "*"
channels = ["'orders'"]
"""


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def install(authority: Authority, name: str, folder: Path) -> None:
    issued = authority.issue(name)
    shutil.copy(issued.key, folder / "tls.key")
    shutil.copy(issued.certificate, folder / "tls.crt")


async def printed(running: Running) -> dict[str, str]:
    """Return the addresses that it prints, each by its name."""
    addresses = {}
    while "Ctrl-C" not in (line := await running.out()):
        name, _, address = line.strip().partition(" ")
        addresses[name] = address.strip()
    return addresses


@pytest.fixture
async def running(authority: Authority, tmp_path: Path) -> AsyncIterator[Running]:
    install(authority, "first", tmp_path)
    (tmp_path / "gateway.toml").write_text(CONFIG)
    async with started("run", cwd=tmp_path) as running:
        yield running


@pytest.fixture
async def addresses(running: Running) -> dict[str, str]:
    return await asyncio.wait_for(printed(running), PATIENCE)


async def test_every_door_is_open_over_tls_and_the_certificate_can_be_renewed(
    addresses: dict[str, str], authority: Authority, tmp_path: Path
) -> None:
    context = ssl.create_default_context(cafile=authority.certificate)
    base = addresses["Console"].rstrip("/")
    assert base.startswith("https://127.0.0.1:")
    assert addresses["WebSocket"] == f"{base.replace('https', 'wss')}/ws"
    async with (
        httpx.AsyncClient(base_url=base, verify=context, timeout=PATIENCE) as http,
        connect(f"{addresses['WebSocket']}?channel=orders", ssl=context, proxy=None) as socket,
        http.stream("GET", "/sse?channel=orders") as stream,
    ):
        assert "subscribed" in json.loads(await socket.recv())
        lines = stream.aiter_lines()
        assert stream.headers["strict-transport-security"] == "max-age=31536000"
        install(authority, "second", tmp_path)
        await eventually(
            lambda: _name(base, context), within=PATIENCE, reason="the new certificate was shown"
        )
        for number in range(200):  # those that were there before have everything, large and small
            await _publish(http, number, "x" * (number * 50))
        assert [await _number(socket) for _ in range(200)] == list(range(200))
        assert [await _next(lines) for _ in range(200)] == list(range(200))


async def test_frames_are_heard_at_once_over_tls(
    addresses: dict[str, str], authority: Authority
) -> None:
    context = ssl.create_default_context(cafile=authority.certificate)
    async with connect(addresses["WebSocket"], ssl=context, proxy=None) as socket:
        async with asyncio.timeout(PATIENCE):
            for number in range(20):
                for verb in ("subscribe", "unsubscribe"):
                    await socket.send(json.dumps({"id": number, verb: {"channel": "orders"}}))
                    assert json.loads(await socket.recv())["id"] == number


@pytest.mark.parametrize("transport", [[], ["--sse"]], ids=["websocket", "sse"])
async def test_a_certificate_of_nobody_who_is_trusted_ends_the_client(
    addresses: dict[str, str], authority: Authority, transport: list[str]
) -> None:
    base = addresses["Console"].rstrip("/")
    command = ("subscribe", "orders", "--until", "1", "--after", "earliest", "--url", base)
    refused = await run(*command, *transport)
    assert refused.code == 1
    assert "cannot connect to 127.0.0.1" in refused.err
    assert "certificate" in refused.err
    event = ("publish", "greeting", '{"n": 1}', "--url", base)
    refused = await run(*event)
    assert refused.code == 1
    assert "trying again" not in refused.err
    trusting = {"SSL_CERT_FILE": str(authority.certificate)}
    assert (await run(*event, env=trusting)).code == 0
    assert (await run(*command, *transport, env=trusting)).code == 0


async def test_a_client_that_looks_at_its_connection_no_more_does_not_hold_up_a_stop(
    running: Running, addresses: dict[str, str], authority: Authority
) -> None:
    context = ssl.create_default_context(cafile=authority.certificate)
    host, _, port = addresses["Console"].strip("/").removeprefix("https://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    cast(asyncio.Transport, writer.transport).pause_reading()
    running.process.terminate()
    try:
        stopped = await asyncio.wait_for(running.result(), PATIENCE)
    finally:
        writer.transport.abort()
    assert (stopped.code, "ERROR" in stopped.err) == (0, False), stopped.err


async def _name(base: str, context: ssl.SSLContext) -> bool:
    """Whether the second certificate is shown to who comes now."""
    host, _, port = base.removeprefix("https://").partition(":")
    _, writer = await asyncio.open_connection(host, int(port), ssl=context)
    subject = dict(each[0] for each in writer.get_extra_info("peercert")["subject"])
    writer.transport.abort()
    return bool(subject["commonName"] == "second")


async def _publish(http: httpx.AsyncClient, number: int, text: str) -> None:
    event = {"specversion": "1.0", "id": str(number), "source": "/t", "type": "t"}
    answer = await http.post(
        "/events",
        json=event | {"data": {"number": number, "text": text}},
        headers={"content-type": "application/cloudevents+json"},
    )
    assert answer.status_code == 202, answer.text


async def _number(socket: ClientConnection) -> int:
    while True:
        said = json.loads(await asyncio.wait_for(socket.recv(), PATIENCE))
        if "event" in said:
            return int(said["event"]["data"]["number"])


async def _next(lines: AsyncIterator[str]) -> int:
    async with asyncio.timeout(PATIENCE):
        async for line in lines:
            if line.startswith("data: {") and '"number"' in line:
                return int(json.loads(line[6:])["data"]["number"])
    raise AssertionError("the stream ended")


async def test_plain_http_gets_no_answer_that_could_be_taken_for_one(
    addresses: dict[str, str],
) -> None:
    async with httpx.AsyncClient(timeout=PATIENCE) as http:
        with pytest.raises(httpx.TransportError):
            await http.get(addresses["Console"].replace("https", "http"))
