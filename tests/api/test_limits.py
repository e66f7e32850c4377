"""The limits of `[server]`: each is heeded at every door that it is for."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from gateway.config import Config
from gateway.configfile import load
from gateway.errors import ConfigError
from gateway.settings import Bytes, Seconds
from tests.api.conftest import config_of
from tests.api.stand import Stand, problem, standing
from tests.servers import RunningServer


@pytest.fixture(scope="module")
async def api(
    valkey: RunningServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stand]:
    folder = tmp_path_factory.mktemp("limits")
    limits = {"max_subscriptions": 3, "max_frame": Bytes(500), "max_wait": Seconds(0)}
    async with standing(config_of(valkey, folder, **limits)) as stand:
        yield stand


@asynccontextmanager
async def socket_of(api: Stand, query: str = "") -> AsyncIterator[Any]:
    async with connect(f"ws://127.0.0.1:{api.port}/ws{query}", proxy=None) as socket:
        yield socket


async def ask(socket: Any, id: int, **frame: object) -> Any:
    """Send a request; return the answer with its id."""
    await socket.send(json.dumps({"id": id, **frame}))
    while (answer := json.loads(await socket.recv())).get("id") != id:
        pass
    return answer


def channels(count: int) -> list[str]:
    return [f"few/{number}" for number in range(count)]


async def test_an_event_stream_has_so_many_channels_and_no_more(api: Stand) -> None:
    url = "/sse?" + "&".join(f"channel={name}" for name in channels(4))
    detail = problem(await api.http.get(url), 429, "too-many-subscriptions")
    assert detail == "expected at most 3 channels but got 4"
    url = "/sse?" + "&".join(f"channel={name}" for name in [*channels(3), *channels(3)])
    async with api.http.stream("GET", url) as answer:
        assert answer.status_code == 200


async def test_a_websocket_has_so_many_subscriptions_and_room_again_after_one_ends(
    api: Stand,
) -> None:
    async with socket_of(api) as socket:
        for number, name in enumerate(channels(3)):
            assert "subscribed" in await ask(socket, number, subscribe={"channel": name})
        refused = (await ask(socket, 3, subscribe={"channel": "log"}))["error"]
        assert (refused["code"], refused["status"]) == ("too-many-subscriptions", 429)
        assert refused["detail"] == "expected at most 3 subscriptions of one connection"
        assert "unsubscribed" in await ask(socket, 4, unsubscribe={"channel": "few/1"})
        assert "subscribed" in await ask(socket, 5, subscribe={"channel": "log"})


async def test_the_address_of_a_websocket_is_held_to_the_same_number(api: Stand) -> None:
    query = "?" + "&".join(f"channel={name}" for name in channels(4))
    async with socket_of(api, query) as socket:
        refused = json.loads(await socket.recv())["error"]
        assert refused["code"] == "too-many-subscriptions"


async def test_a_message_that_is_too_large_ends_its_connection(api: Stand) -> None:
    async with socket_of(api) as socket:
        fits = json.dumps({"id": 1, "command": {"path": "/unheard", "data": {"a": ""}}})
        await socket.send(fits.replace('""', f'"{"x" * (500 - len(fits))}"'))
        assert "accepted" in json.loads(await socket.recv())
        await socket.send("x" * 501)
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
        assert closed.value.rcvd
        assert closed.value.rcvd.code == 1009


async def test_a_gateway_that_lets_nobody_wait_says_so(api: Stand) -> None:
    answer = await api.post("/unheard", b"{}", prefer="wait=20")
    assert (answer.status_code, answer.headers["preference-applied"]) == (202, "wait=0")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("max_subscriptions = 0", "expected 1 or more but got 0"),
        ('max_frame = "0B"', "expected more than 0 but got '0B'"),
        ("max_body = -1", 'expected a size such as "64KiB"'),
        ('max_wait = "-1s"', 'expected a duration such as "250ms"'),
        ("heartbeat = 0", "expected more than 0 but got 0"),
        ("write_buffer = 0", "expected more than 0 but got 0"),
    ],
)
def test_a_limit_that_would_let_nothing_through_is_refused(
    tmp_path: Path, line: str, expected: str
) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(f"[server]\n{line}\n")
    with pytest.raises(ConfigError) as caught:
        load(file, {})
    assert str(caught.value).startswith(f"{file}:2: ")
    assert expected in str(caught.value)


def test_the_limits_have_defaults_that_suit_a_browser() -> None:
    server = Config().server
    assert (server.max_subscriptions, server.max_body, server.max_frame) == (100, 1 << 20, 1 << 16)
