"""Who is let through to the broker, and when nobody is."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.admission import MAX_BYTES, SMALL, Admission, Circuit
from gateway.commands import Priority
from gateway.errors import BrokerUnavailable, Overloaded
from tests.servers import eventually


class Probe:
    """A broker that answers probes, or not."""

    def __init__(self) -> None:
        self.away = False
        self.probes = 0

    async def __call__(self) -> None:
        self.probes += 1
        if self.away:
            raise BrokerUnavailable("away")


@pytest.fixture
def probe() -> Probe:
    return Probe()


@pytest.fixture
async def admission(probe: Probe) -> AsyncIterator[Admission]:
    admission = Admission(probe, limit=10, patience=0.2)
    running = asyncio.create_task(admission.run())
    yield admission
    running.cancel()
    await asyncio.wait([running])


async def fail(admission: Admission) -> None:
    with pytest.raises(BrokerUnavailable, match="gone"):
        async with admission.admitted():
            raise BrokerUnavailable("gone")


async def hold(admission: Admission, release: asyncio.Event, priority: Priority) -> None:
    async with admission.admitted(priority):
        await release.wait()


async def test_one_failure_refuses_all_who_come_after_without_asking_the_broker(
    admission: Admission, probe: Probe
) -> None:
    probe.away = True
    await fail(admission)
    with pytest.raises(BrokerUnavailable, match="was not sent"):
        async with admission.admitted():
            pytest.fail("it was let through")


async def test_what_takes_longer_than_the_patience_is_refused_and_so_are_all_others(
    admission: Admission, probe: Probe
) -> None:
    probe.away = True
    with pytest.raises(BrokerUnavailable, match="did not answer in time"):
        async with admission.admitted():
            await asyncio.Event().wait()
    assert admission.circuit is not Circuit.CLOSED


async def test_who_was_answered_already_has_all_the_time_that_it_needs(
    admission: Admission,
) -> None:
    async with admission.admitted(answered=True):
        await asyncio.sleep(0.4)  # twice the patience
    assert admission.circuit is Circuit.CLOSED


async def test_it_closes_by_itself_when_a_probe_succeeds(
    admission: Admission, probe: Probe
) -> None:
    probe.away = True
    await fail(admission)

    async def probed() -> bool:
        return probe.probes >= 2

    await eventually(probed, reason="the broker was probed while it was away")
    assert admission.circuit is not Circuit.CLOSED
    probe.away = False

    async def closed() -> bool:
        return admission.circuit is Circuit.CLOSED

    await eventually(closed, reason="the circuit closed")
    async with admission.admitted():
        pass
    await fail(admission)
    await eventually(closed, reason="it closed a second time")


async def test_a_probe_that_hangs_counts_as_failed() -> None:
    hanging = asyncio.Event()

    async def probe() -> None:
        hanging.set()
        await asyncio.Event().wait()

    admission = Admission(probe, limit=10, patience=0.05)
    running = asyncio.create_task(admission.run())
    await fail(admission)
    await hanging.wait()
    assert admission.circuit is Circuit.HALF_OPEN

    async def opened() -> bool:
        return admission.circuit is Circuit.OPEN

    await eventually(opened, reason="the probe was given up")
    running.cancel()
    await asyncio.wait([running])


async def test_those_of_low_priority_are_refused_first(admission: Admission) -> None:
    release = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(5):
            tasks.create_task(hold(admission, release, Priority.NORMAL))

        async def under_way() -> bool:
            return admission.under_way == 5

        await eventually(under_way, reason="five are under way")
        with pytest.raises(Overloaded, match="fewer than 5 requests of low priority"):
            admission.check(Priority.LOW)
        for _ in range(5):
            tasks.create_task(hold(admission, release, Priority.NORMAL))

        async def full() -> bool:
            return admission.under_way == 10

        await eventually(full, reason="ten are under way")
        with pytest.raises(Overloaded, match="fewer than 10 requests of normal priority"):
            admission.check(Priority.NORMAL)
        release.set()
    assert admission.under_way == 0
    admission.check(Priority.LOW)


async def test_a_refusal_for_another_reason_leaves_the_circuit_closed(admission: Admission) -> None:
    with pytest.raises(ValueError, match="its own"):
        async with admission.admitted():
            raise ValueError("its own mistake")
    assert admission.circuit is Circuit.CLOSED
    assert admission.under_way == 0


async def test_large_ones_are_refused_where_many_bytes_are_under_way(admission: Admission) -> None:
    async with admission.admitted(size=2 * MAX_BYTES):  # alone, it is let through however large
        with pytest.raises(Overloaded, match=f"at most {MAX_BYTES} bytes of normal priority"):
            async with admission.admitted(size=SMALL + 1):
                pytest.fail("it was let through")
        async with admission.admitted(size=SMALL), admission.admitted():
            pass
    async with admission.admitted(size=MAX_BYTES // 2):
        admission.check(Priority.NORMAL, MAX_BYTES // 2)
        with pytest.raises(Overloaded, match=f"at most {MAX_BYTES // 2} bytes of low priority"):
            admission.check(Priority.LOW, MAX_BYTES // 2)
    assert admission.bytes_under_way == 0


async def test_who_was_answered_already_is_not_refused(admission: Admission) -> None:
    async with admission.admitted(size=MAX_BYTES):
        admission.check(Priority.NORMAL)
        async with admission.admitted(size=MAX_BYTES, answered=True):
            assert admission.under_way == 2
