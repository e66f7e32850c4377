"""Which partitions a worker holds, by real leases."""

import asyncio

from gateway.worker.holdings import Holdings
from tests.servers import eventually
from tests.worker.stage import LEASE, STREAM, Stage


async def test_a_lease_that_was_renewed_late_is_told_of(stage: Stage) -> None:
    """Otherwise whoever found nothing to read in that moment would wait for ever."""
    changed = asyncio.Event()
    leases = stage.broker.leases("worker", ttl=LEASE)
    holdings = Holdings(leases, [STREAM], 4, on_change=changed.set)
    await holdings.tick()
    assert len(holdings.open()) == 4
    changed.clear()
    for partition in holdings.held.values():
        partition.expires = 0.0
    assert holdings.open() == []

    async def renewed() -> bool:
        await holdings.tick()
        return bool(holdings.open())

    await eventually(renewed, within=30, reason="the leases were renewed")
    assert changed.is_set()


async def test_a_lease_that_was_renewed_in_time_is_no_news(stage: Stage) -> None:
    changed = asyncio.Event()
    leases = stage.broker.leases("worker", ttl=LEASE)
    holdings = Holdings(leases, [STREAM], 4, on_change=changed.set)
    await holdings.tick()
    changed.clear()
    expires = min(partition.expires for partition in holdings.open())

    async def renewed() -> bool:
        await holdings.tick()
        return min(partition.expires for partition in holdings.held.values()) > expires

    await eventually(renewed, within=30, reason="the leases were renewed")
    assert len(holdings.open()) == 4
    assert not changed.is_set()
