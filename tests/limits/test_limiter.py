"""The limiter: one answer from the broker, or this process's share of it while that is away."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.admission import Admission
from gateway.broker.keys import Keys
from gateway.broker.limits import SharedBuckets
from gateway.broker.scripts import Pipeline
from gateway.config import CommandConfig, Config, LimitConfig, QueueConfig
from gateway.errors import BrokerUnavailable, RateLimited
from gateway.limits.limiter import MAX_WAITING, TRUST, Limiter
from gateway.policy import Policy
from gateway.policy.limits import Deed
from gateway.principals import Caller
from gateway.settings import Frequency, Of, Per, Seconds
from gateway.telemetry.metrics import Metrics
from tests.servers import Broker, eventually

DEED = Deed(Of.COMMANDS, Caller(address="203.0.113.1"), "place")


class Cable(Pipeline):
    """A way to the broker that can be cut, and counts."""

    cut = False
    calls = 0

    async def call(self, name: str, keys: list[str], arguments: list[Any]) -> Any:
        self.calls += 1
        if self.cut:
            raise BrokerUnavailable("the cable is cut")
        return await super().call(name, keys, arguments)


class Stand:
    """A limiter of one process, and all that a test has in its hand."""

    def __init__(self, broker: Broker, *limits: LimitConfig) -> None:
        self.cable = Cable(broker.clients.commands)
        self.admission = Admission(self.probe, limit=100, patience=5)
        self.processes = 1
        self.now = 1000.0
        command = CommandConfig(path="/place", type="place", stream="s")
        keys = Keys(broker.config.namespace)
        self.limiter = Limiter(
            Policy.of(Config(commands=[command], limits=limits)).limits,
            SharedBuckets(self.cable, keys),
            self.admission,
            Metrics(),
            processes=lambda: self.processes,
            clock=lambda: self.now,
        )

    async def probe(self) -> None:
        if self.cable.cut:
            raise BrokerUnavailable("the cable is cut")

    async def passed(self, count: int) -> int:
        """Try so often; return how often it was let through."""
        passed = 0
        for _ in range(count):
            try:
                await self.limiter.charge(DEED)
            except RateLimited:
                continue
            passed += 1
        return passed


def limit(**more: Any) -> LimitConfig:
    values: dict[str, Any] = {
        "name": "few",
        "per": [Per.IP],
        "rate": Frequency.parse("8/d"),
        "burst": 8,
    } | more
    return LimitConfig(**values)


@pytest.fixture
async def stand(broker: Broker) -> AsyncIterator[Stand]:
    stand = Stand(broker, limit())
    running = asyncio.create_task(stand.admission.run())
    yield stand
    running.cancel()
    await asyncio.wait([running])


async def test_without_limits_nothing_is_asked(broker: Broker) -> None:
    stand = Stand(broker)
    assert await stand.passed(10) == 10
    assert stand.cable.calls == 0


async def test_with_the_broker_away_the_process_has_its_share(stand: Stand) -> None:
    stand.processes = 4
    stand.cable.cut = True
    assert await stand.passed(10) == 2
    stand.now += 12 * 3600  # half a day, in which all may do it four times
    assert await stand.passed(10) == 1


async def test_a_share_is_never_nothing(stand: Stand) -> None:
    stand.processes = 100
    stand.cable.cut = True
    assert await stand.passed(3) == 1


async def test_when_the_broker_is_back_it_decides_again(stand: Stand) -> None:
    assert await stand.passed(6) == 6
    stand.cable.cut = True
    assert await stand.passed(20) == 8
    stand.cable.cut = False

    async def decides() -> bool:
        before = stand.cable.calls
        await stand.passed(1)
        return stand.cable.calls > before

    await eventually(decides, within=30, reason="the circuit was closed again")
    assert await stand.passed(5) <= 2


async def test_a_refusal_is_repeated_without_asking_and_then_asked_again(
    stand: Stand, broker: Broker
) -> None:
    assert await stand.passed(9) == 8
    calls = stand.cable.calls
    assert await stand.passed(50) == 0
    assert stand.cable.calls == calls
    await broker.clients.commands.flushall()  # an operator is merciful
    stand.now += TRUST
    assert await stand.passed(1) == 1


async def test_what_is_told_while_a_refusal_is_repeated_gets_less(stand: Stand) -> None:
    await stand.passed(9)
    with pytest.raises(RateLimited) as first:
        await stand.limiter.charge(DEED)
    stand.now += TRUST / 2
    with pytest.raises(RateLimited) as second:
        await stand.limiter.charge(DEED)
    waits = [caught.value.extra["retry_after_ms"] for caught in (first, second)]
    assert waits[0] - waits[1] == pytest.approx(TRUST / 2 * 1000, abs=2)  # type: ignore[operator]


async def test_where_too_many_wait_nobody_more_may(broker: Broker) -> None:
    queue = QueueConfig(size=10, wait=Seconds(30))
    stand = Stand(broker, limit(rate=Frequency.parse("4/m"), burst=1, queue=queue))
    await stand.limiter.charge(DEED)
    stand.limiter.waiting = MAX_WAITING
    with pytest.raises(RateLimited):
        await stand.limiter.charge(DEED)
