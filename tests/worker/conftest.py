"""Fixtures of the worker's tests: a stage for each, on a log of its own."""

from types import SimpleNamespace

import pytest

from tests.servers import Broker
from tests.worker.stage import Stage, config_of


@pytest.fixture
def stage(broker: Broker) -> Stage:
    """An empty log on the embedded Valkey, with one stream."""
    return Stage(config_of(broker.config), broker.clients)


@pytest.fixture
def any_stage(any_broker: Broker) -> Stage:
    """The same on each kind of server in turn."""
    return Stage(config_of(any_broker.config), any_broker.clients)


@pytest.fixture
def longest_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every delay is as long as it may be, and so it is known."""
    longest = SimpleNamespace(uniform=lambda least, most: most)
    monkeypatch.setattr("gateway.worker.retries.random", longest)
