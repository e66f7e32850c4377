"""Buckets at the broker: one step, all or none, by the broker's clock, and gone by themselves."""

import asyncio
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.broker.keys import Keys
from gateway.broker.limits import SharedBuckets
from gateway.broker.scripts import Pipeline
from gateway.buckets import Buckets, Charge
from tests.servers import Broker, eventually

DAY = 86_400.0


def buckets(broker: Broker) -> SharedBuckets:
    return SharedBuckets(Pipeline(broker.clients.commands), Keys(broker.config.namespace))


def charge(key: str = "a", *, interval: float = DAY, burst: int = 3, **more: Any) -> Charge:
    return Charge(key, interval, burst, **more)


async def test_a_burst_passes_and_no_more(any_broker: Broker) -> None:
    shared = buckets(any_broker)
    verdicts = [await shared.charge([charge()]) for _ in range(4)]
    assert [each.levels[0].remaining for each in verdicts] == [2, 1, 0, 0]
    assert [bool(each.retry_after) for each in verdicts] == [False, False, False, True]
    assert DAY - 60 < verdicts[3].retry_after <= DAY
    assert 3 * DAY - 60 < verdicts[3].levels[0].full_in <= 3 * DAY


async def test_what_is_refused_passes_when_it_was_told_to_come(broker: Broker) -> None:
    shared = buckets(broker)
    quick = charge(interval=0.3, burst=1)
    await shared.charge([quick])
    verdict = await shared.charge([quick])
    assert 0 < verdict.retry_after <= 0.3
    await asyncio.sleep(verdict.retry_after)
    assert not (await shared.charge([quick])).retry_after


async def test_all_buckets_are_charged_or_none(broker: Broker) -> None:
    shared = buckets(broker)
    small = charge("b", burst=1)
    assert not (await shared.charge([charge(), small])).retry_after
    refused = await shared.charge([charge(), small])
    assert [bool(level.early) for level in refused.levels] == [False, True]
    verdicts = [await shared.charge([charge()]) for _ in range(3)]
    assert [bool(each.retry_after) for each in verdicts] == [False, False, True]


async def test_concurrent_requests_are_let_through_as_often_as_there_is_room(
    broker: Broker,
) -> None:
    several = [buckets(broker) for _ in range(4)]  # as of four processes
    asked = [each.charge([charge(burst=50)]) for each in several * 50]
    verdicts = await asyncio.gather(*asked)
    assert sum(not each.retry_after for each in verdicts) == 50


async def test_who_may_wait_is_told_for_how_long(broker: Broker) -> None:
    shared = buckets(broker)
    patient = charge(burst=1, patience=1.5 * DAY)
    first, second, third = [await shared.charge([patient]) for _ in range(3)]
    assert first.wait == 0
    assert DAY - 60 < second.wait <= DAY
    assert third.wait == 0
    assert 0.5 * DAY - 60 < third.retry_after <= 0.5 * DAY


async def test_a_bucket_is_gone_when_it_is_full(broker: Broker) -> None:
    shared, keys = buckets(broker), Keys(broker.config.namespace)
    await shared.charge([charge(interval=0.05)])
    redis = broker.clients.commands
    assert 0 < await redis.pttl(keys.limit("a")) <= 51

    async def gone() -> bool:
        return not await redis.exists(keys.limit("a"))

    await eventually(gone, reason="the bucket expired")


async def test_a_clock_that_was_set_back_shuts_nobody_out_for_long(broker: Broker) -> None:
    keys = Keys(broker.config.namespace)
    in_a_year = 4_000_000_000_000_000
    await broker.clients.commands.set(keys.limit("a"), in_a_year)
    verdict = await buckets(broker).charge([charge(interval=1.0)])
    assert 0 < verdict.retry_after <= 1.0


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.lists(st.sampled_from("abc"), min_size=1, max_size=3, unique=True),
        min_size=1,
        max_size=12,
    ),
    st.integers(1, 4),
    st.integers(0, 2),
)
async def test_both_buckets_decide_alike(
    broker: Broker, requests: list[list[str]], burst: int, patience: int
) -> None:
    await broker.clients.commands.flushall()
    shared, own = buckets(broker), Buckets()
    for names in requests:
        charges = [charge(name, burst=burst, patience=patience * DAY) for name in names]
        there, here = await shared.charge(charges), own.charge(charges, 0.0)
        assert bool(there.retry_after) == bool(here.retry_after)
        assert round(there.wait / DAY) == round(here.wait / DAY)
        assert [each.remaining for each in there.levels] == [each.remaining for each in here.levels]
