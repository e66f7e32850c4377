"""A hub over a log in memory."""

import pytest

from gateway.channels import EntryId
from gateway.events import Retention
from gateway.hub.history import History
from gateway.hub.hub import Hub
from tests.hub.peers import EPOCH, TTL_MS, Log

WRITE_BUFFER = 100


@pytest.fixture
async def log() -> Log:
    """An empty log that answers at once."""
    return Log()


@pytest.fixture
async def hub(log: Log) -> Hub:
    """A hub at the beginning of that log. A connection may have 100 bytes unsent."""
    hub = Hub(History(log, lambda channel: Retention(TTL_MS)), write_buffer=WRITE_BUFFER)  # type: ignore[arg-type]
    hub.begin(EPOCH, EntryId(0, 0))
    return hub
