"""Fixtures over real servers. A test that needs a log takes `broker`, a contract `any_broker`."""

import asyncio
import inspect
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from gateway.broker.client import connect
from gateway.config import BrokerConfig
from tests.servers import (
    Broker,
    RunningServer,
    clear_away,
    redis7_binary,
    redis8_binary,
    running,
    short_directory,
    valkey_binary,
)

LONGEST = ("e2e", "conformance", "worker", "contract")
"""Directories whose files take longest, by far those of the first."""

hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


def pytest_sessionstart() -> None:
    clear_away()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let what takes longest begin first: then several processes come to their end together."""
    places = [Path(__file__).parent / name for name in LONGEST]

    def rank(item: pytest.Item) -> int:
        found = (at for at, place in enumerate(places) if item.path.is_relative_to(place))
        return next(found, len(places))

    items.sort(key=rank)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Async tests and fixtures run on asyncio alone, as the gateway does."""
    return "asyncio"


@pytest.fixture(autouse=True)
def on_its_own_loop(request: pytest.FixtureRequest) -> None:
    """Async tests run on the event loop that they ask for.

    An async fixture that outlives a test would keep its own loop for all that follow.
    """
    if inspect.iscoroutinefunction(request.function):
        request.getfixturevalue("loop_as_asked")


@pytest.fixture
async def loop_as_asked(anyio_backend: str | tuple[str, dict[str, Any]]) -> None:
    wanted = isinstance(anyio_backend, tuple) and anyio_backend[1]["use_uvloop"]
    assert type(asyncio.get_running_loop()).__module__.startswith("uvloop") == wanted


@pytest.fixture(scope="session")
def valkey() -> Iterator[RunningServer]:
    """The Valkey that the gateway embeds, for the whole run."""
    with running(valkey_binary()) as server:
        yield server


@pytest.fixture(scope="session")
def redis7() -> Iterator[RunningServer]:
    """Debian's Redis 7.0, for the whole run."""
    with running(redis7_binary()) as server:
        yield server


@pytest.fixture(scope="session")
def redis8() -> Iterator[RunningServer]:
    """A Redis 8, for the whole run."""
    with running(redis8_binary()) as server:
        yield server


@pytest.fixture(params=["valkey", pytest.param("redis7", marks=pytest.mark.redis), "redis8"])
def any_server(request: pytest.FixtureRequest) -> RunningServer:
    """Each kind of server in turn: what takes this runs once for each."""
    server: RunningServer = request.getfixturevalue(request.param)
    return server


@pytest.fixture
async def broker(valkey: RunningServer) -> AsyncIterator[Broker]:
    """An empty log on the embedded Valkey."""
    async with _broker(valkey) as broker:
        yield broker


@pytest.fixture
async def any_broker(any_server: RunningServer) -> AsyncIterator[Broker]:
    """An empty log on each kind of server in turn."""
    async with _broker(any_server) as broker:
        yield broker


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """A directory for one test, with a path short enough for Unix sockets."""
    with short_directory() as directory:
        yield directory


@asynccontextmanager
async def _broker(server: RunningServer) -> AsyncIterator[Broker]:
    config = BrokerConfig(url=server.url, namespace=f"test-{secrets.token_hex(4)}")
    clients = await connect(config)
    try:
        await clients.commands.flushall()
        yield Broker(config=config, clients=clients, server=server)
    finally:
        await clients.close()
