"""What the tests of connections share."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.contract.serving import DETACHED, Serving, serving
from tests.servers import RunningServer


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Both event loops: their transports differ."""
    return "asyncio", {"use_uvloop": request.param}


@pytest.fixture
async def gateway(valkey: RunningServer) -> AsyncIterator[Serving]:
    """A gateway with detached connections."""
    async with serving(valkey, DETACHED) as running:
        yield running
