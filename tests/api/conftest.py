"""One gateway for each file of tests: what they hold is said about single requests."""

import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway import Command, Event, Rejected, handles
from gateway.config import (
    BrokerConfig,
    ChannelConfig,
    CommandConfig,
    Config,
    EventsConfig,
    FeedConfig,
    HistoryConfig,
    ServerConfig,
)
from gateway.settings import Bytes, Seconds
from tests.api.stand import Stand, standing
from tests.servers import RunningServer

MAX_BODY = 20_000
TOKEN = "sesame"
SCHEMA = """{
  "type": "object",
  "required": ["customer", "qty"],
  "properties": {
    "customer": {"type": "string"},
    "qty": {"type": "integer", "minimum": 1},
    "lines": {"type": "array", "items": {"type": "object", "required": ["a/b"]}}
  }
}"""


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """The event loop of production."""
    return "asyncio", {"use_uvloop": True}


@handles("order.place")
async def place(command: Command[dict[str, Any]]) -> Event:
    if command.data["customer"] == "bad":
        raise Rejected("no credit")
    return Event("order.placed", data=command.data)


@handles("break", retries=0)
async def break_down(command: Command[Any]) -> None:
    raise ValueError("boom")


@handles("echo")
async def echo(command: Command[Any]) -> list[Event]:
    return [Event("echoed", data={"data": command.data, "source": command.source})]


def config_of(server: RunningServer, folder: Path, **settings: Any) -> Config:
    """Commands that succeed, fail and break, one that nobody handles, and events from producers."""
    schema = folder / "order.json"
    schema.write_text(SCHEMA)
    return Config(
        broker=BrokerConfig(url=server.url, namespace=f"api-{secrets.token_hex(4)}"),
        server=ServerConfig(
            **{"max_body": Bytes(MAX_BODY), "demo": True, "max_wait": Seconds(20)} | settings
        ),
        commands=[
            CommandConfig(path="/orders", type="order.place", stream="orders", schema=schema),
            CommandConfig(path="/break", type="break", stream="others"),
            CommandConfig(path="/unheard", type="unheard", stream="unheard"),
            CommandConfig(path="/echo/{name}", type="echo", stream="others"),
            CommandConfig(path="/echo", type="echo", stream="others"),
        ],
        channels=[
            ChannelConfig(pattern="log", history=HistoryConfig(size=1000)),
            ChannelConfig(pattern="few/{name}", history=HistoryConfig(size=5)),
            ChannelConfig(pattern="mute"),
        ],
        feeds=[FeedConfig(type="*", channels=["'log'"])],
        events=EventsConfig(tokens=[TOKEN, "another"]),
    )


@pytest.fixture(scope="module")
async def api(
    valkey: RunningServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stand]:
    """A gateway with a worker, for all tests of a file."""
    config = config_of(valkey, tmp_path_factory.mktemp("api"))
    async with standing(config, place, break_down, echo) as stand:
        yield stand
