"""The broker goes away, or falls silent: requests are refused at once, until it is back."""

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from websockets.asyncio.client import connect

from gateway.config import Config
from gateway.errors import GatewayError
from gateway.settings import Seconds
from tests.api.conftest import TOKEN, config_of
from tests.api.stand import Stand, problem, standing
from tests.servers import RunningServer, eventually, lasting

ORDER = b'{"customer":"c","qty":1}'
QUICK = 5.0
"""Seconds. On an idle machine a refusal takes some milliseconds."""
TIMEOUT = 0.5
"""Seconds that a call to the broker may take here."""


@pytest.fixture
def config(valkey: RunningServer, short_dir: Path) -> Config:
    config = config_of(valkey, short_dir)
    url = f"unix://{short_dir / 's'}"
    return msgspec.structs.replace(
        config,
        broker=msgspec.structs.replace(config.broker, url=url, timeout=Seconds(TIMEOUT)),
    )


async def requests(api: Stand) -> dict[str, httpx.Response]:
    """Make one of each request that needs the broker, all at once."""
    http = api.http
    headers = {"authorization": f"Bearer {TOKEN}", "content-type": "application/cloudevents+json"}
    event = b'{"specversion":"1.0","id":"1","source":"/","type":"t"}'
    made = {
        "command": api.post("/orders", ORDER),
        "command to wait for": api.post("/orders", ORDER, prefer="wait=20"),
        "status": http.get("/commands/x"),
        "event": http.post("/events", content=event, headers=headers),
        "history": http.get("/channels/log/history"),
        "readiness": http.get("/readyz"),
    }
    return dict(zip(made, await asyncio.gather(*made.values()), strict=True))


def check_refused(answers: dict[str, httpx.Response]) -> None:
    for answer in answers.values():
        problem(answer, 503, "broker-unavailable")
        assert answer.headers["retry-after"] == "2"


async def unready(api: Stand) -> None:
    async def noticed() -> bool:
        return (await api.http.get("/readyz")).status_code == 503

    await eventually(noticed, within=30, reason="the absence was noticed")


async def recovered(api: Stand) -> None:
    """Wait until everything is answered as usual, with nothing done about it."""

    async def usual() -> bool:
        answers = await requests(api)
        statuses = {name: answer.status_code for name, answer in answers.items()}
        statuses.pop("command to wait for")  # there is no worker
        return statuses == {
            "command": 202,
            "status": 404,
            "event": 202,
            "history": 200,
            "readiness": 200,
        }

    async def ready() -> bool:
        return (await api.http.get("/readyz")).status_code == 200

    await eventually(ready, within=30, reason="the gateway was ready again")
    await eventually(usual, within=60, reason="all was as usual again")


@asynccontextmanager
async def socket_of(api: Stand) -> AsyncIterator[Any]:
    async with connect(f"ws://127.0.0.1:{api.port}/ws?channel=log", proxy=None) as socket:
        assert "subscribed" in json.loads(await socket.recv())
        yield socket


async def frame(socket: Any, name: str) -> Any:
    """Return the next frame of this name."""
    async with asyncio.timeout(30):
        while name not in (told := json.loads(await socket.recv())):
            pass
    return told


@asynccontextmanager
async def beside(config: Config, short_dir: Path) -> AsyncIterator[tuple[Any, Stand]]:
    """A gateway, and the server beside it that can be taken away."""
    with lasting(short_dir) as server:
        await answering(short_dir)
        async with standing(config) as api:
            yield server, api


async def test_without_a_broker_everything_is_refused_at_once_until_it_is_back(
    config: Config, short_dir: Path
) -> None:
    with lasting(short_dir) as server:
        await answering(short_dir)
        async with standing(with_short_wait(config)) as api, socket_of(api) as socket:
            assert (await api.post("/orders", ORDER)).status_code == 202
            server.kill()
            await unready(api)
            begun = time.monotonic()
            check_refused(await requests(api))
            assert time.monotonic() - begun < QUICK
            assert (await api.http.get("/healthz")).json() == {"status": "ok"}
            await socket.send(
                '{"id":7,"command":{"path":"/orders","data":{"customer":"c","qty":1}}}'
            )
            refusal = await frame(socket, "error")
            assert (refusal["id"], refusal["error"]["code"]) == (7, "broker-unavailable")
            with lasting(short_dir):
                await recovered(api)
                told = (await frame(socket, "event"))["event"]
                assert told["type"] == "t"  # the connection stayed, and nothing was invented


async def test_without_a_broker_the_metrics_tell_of_the_process_alone(
    config: Config, short_dir: Path
) -> None:
    async with beside(config, short_dir) as (server, api):

        async def told() -> str:
            return (await api.http.get("/metrics")).text

        text = await told()
        assert "gateway_backlog{" in text
        assert "gateway_feed_lag 0.0\n" in text
        server.kill()

        async def left_out() -> bool:
            return "gateway_backlog{" not in await told()

        await eventually(left_out, within=30, reason="the last figures were too old")
        text = await told()
        assert "gateway_feed_lag NaN\n" in text
        assert 'gateway_circuit{state="closed"}' in text


def with_short_wait(config: Config) -> Config:
    server = msgspec.structs.replace(config.server, max_wait=Seconds(0.1))
    return msgspec.structs.replace(config, server=server)


async def answering(directory: Path) -> None:
    async def there() -> bool:
        try:
            _, writer = await asyncio.open_unix_connection(str(directory / "s"))
        except OSError:
            return False
        writer.close()
        return True

    await eventually(there, within=30, reason="the server listened")


async def test_a_broker_that_is_silent_keeps_nobody_waiting_but_the_first(
    config: Config, short_dir: Path
) -> None:
    with lasting(short_dir) as server:
        await answering(short_dir)
        async with standing(with_short_wait(config)) as api:
            assert (await api.post("/orders", ORDER)).status_code == 202
            os.kill(server.pid, signal.SIGSTOP)
            try:
                begun = time.monotonic()
                problem(await api.post("/orders", ORDER), 503, "broker-unavailable")
                assert time.monotonic() - begun >= TIMEOUT
                slow = 0
                for _ in range(30):
                    begun = time.monotonic()
                    problem(await api.post("/orders", ORDER), 503, "broker-unavailable")
                    slow += time.monotonic() - begun >= TIMEOUT
                assert slow <= 3  # who tries whether it is back
            finally:
                os.kill(server.pid, signal.SIGCONT)
            await recovered(api)


async def test_who_waits_for_an_outcome_while_the_broker_goes_is_told_that_it_was_accepted(
    config: Config, short_dir: Path
) -> None:
    async with beside(config, short_dir) as (server, api):
        waiting = asyncio.create_task(api.post("/unheard", b"{}", prefer="wait=2"))
        await eventually(
            lambda: len(api.gateway.hub._audiences) == 1, within=30, reason="it was waited for"
        )
        history = await api.http.get("/channels/log/history")
        assert history.status_code == 200
        server.kill()
        answer = await waiting
        assert (answer.status_code, answer.json()["status"]) == (202, "accepted")


async def test_a_gateway_does_not_start_without_its_broker(config: Config) -> None:
    with pytest.raises(GatewayError, match="cannot be reached"):
        async with standing(config):
            pass
