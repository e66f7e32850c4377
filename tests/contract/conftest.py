"""The contract's world: {detached, plain ASGI} over {embedded Valkey, Debian's Redis 7}."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.contract.serving import DETACHED, PLAIN, Serving, Transports, serving
from tests.contract.subscribers import KINDS, Kind
from tests.servers import RunningServer


@pytest.fixture(params=[DETACHED, PLAIN], ids=lambda each: each.name)
def transports(request: pytest.FixtureRequest) -> Transports:
    """Each way of serving connections in turn."""
    chosen: Transports = request.param
    return chosen


@pytest.fixture
def anyio_backend(transports: Transports) -> tuple[str, dict[str, Any]]:
    """The event loop: uvloop under detached connections, as in production."""
    return "asyncio", {"use_uvloop": transports.detached}


@pytest.fixture(params=["valkey", pytest.param("redis7", marks=pytest.mark.redis)])
def log(request: pytest.FixtureRequest) -> RunningServer:
    """Each log server in turn."""
    server: RunningServer = request.getfixturevalue(request.param)
    return server


@pytest.fixture(params=KINDS, ids=lambda each: each.name)
def kind(request: pytest.FixtureRequest) -> Kind:
    """Each kind of subscriber in turn: WebSocket and Server-Sent Events."""
    chosen: Kind = request.param
    return chosen


@pytest.fixture
async def gateway(log: RunningServer, transports: Transports) -> AsyncIterator[Serving]:
    """A gateway with the usual settings."""
    async with serving(log, transports) as running:
        yield running
