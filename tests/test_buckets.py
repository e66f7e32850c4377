"""Buckets: what one process lets through by itself, by the clock that it is given."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.buckets import Buckets, Charge, Level


def charge(key: str = "a", *, rate: float = 10, burst: int = 3, **more: float) -> Charge:
    return Charge(key, 1 / rate, burst, **more)  # type: ignore[arg-type]


def passes(buckets: Buckets, now: float, *charges: Charge) -> bool:
    return not buckets.charge(charges or [charge()], now).retry_after


def test_a_burst_passes_and_then_as_many_as_the_rate_allows() -> None:
    buckets = Buckets()
    assert [passes(buckets, 0.0) for _ in range(4)] == [True, True, True, False]
    assert not passes(buckets, 0.09)
    assert passes(buckets, 0.11)
    assert not passes(buckets, 0.12)
    assert [passes(buckets, 9.0) for _ in range(4)] == [True, True, True, False]


def test_a_refusal_says_when_it_would_pass() -> None:
    buckets = Buckets()
    for _ in range(3):
        buckets.charge([charge()], 0.0)
    verdict = buckets.charge([charge()], 0.04)
    assert round(verdict.retry_after, 3) == 0.06
    assert verdict.levels[0].remaining == 0
    assert passes(buckets, 0.04 + verdict.retry_after + 1e-9)


def test_levels_tell_what_is_left_and_when_all_of_it_is_back() -> None:
    buckets = Buckets()
    (level,) = buckets.charge([charge()], 0.0).levels
    assert level._replace(full_in=round(level.full_in, 6)) == Level(2, 0.1)
    (level,) = buckets.charge([charge()], 0.05).levels
    assert level._replace(full_in=round(level.full_in, 6)) == Level(1, 0.15)


def test_all_buckets_are_charged_or_none() -> None:
    buckets = Buckets()
    small = charge("b", burst=1)
    assert passes(buckets, 0.0, charge(), small)
    assert not passes(buckets, 0.0, charge(), small)
    assert [passes(buckets, 0.0) for _ in range(3)] == [True, True, False]


def test_who_may_wait_is_told_for_how_long() -> None:
    buckets = Buckets()
    patient = charge(burst=1, patience=0.25)
    waits = [round(buckets.charge([patient], 0.0).wait, 3) for _ in range(3)]
    assert waits == [0.0, 0.1, 0.2]
    assert round(buckets.charge([patient], 0.0).retry_after, 3) == 0.05


def test_several_at_once_pass_together_or_not() -> None:
    buckets = Buckets()
    assert passes(buckets, 0.0, charge(cost=2))
    assert not passes(buckets, 0.0, charge(cost=2))
    assert passes(buckets, 0.0)


def test_to_look_charges_nothing() -> None:
    buckets = Buckets()
    assert buckets.delay(charge(), 0.0) == 0.0
    for _ in range(3):
        buckets.charge([charge()], 0.0)
    assert [round(buckets.delay(charge(), 0.0), 3) for _ in range(2)] == [0.1, 0.1]
    assert passes(buckets, 0.11)


def test_strangers_with_many_names_take_no_more_room_than_there_is() -> None:
    buckets = Buckets(capacity=100)
    for number in range(10_000):
        assert passes(buckets, 0.0, charge(f"stranger-{number}"))
    assert len(buckets) <= 100
    for _ in range(3):
        buckets.charge([charge("last")], 0.0)
    assert not passes(buckets, 0.0, charge("last"))


@given(
    st.integers(1, 20),
    st.floats(0.5, 100),
    st.lists(st.floats(0, 2), min_size=1, max_size=60),
)
def test_no_stretch_of_time_lets_more_through_than_burst_and_rate(
    burst: int, rate: float, pauses: list[float]
) -> None:
    buckets, now, passed = Buckets(), 0.0, []
    for pause in pauses:
        now += pause
        if passes(buckets, now, charge(rate=rate, burst=burst)):
            passed.append(now)
    for index, begin in enumerate(passed):
        for count, end in enumerate(passed[index:], 1):
            assert count <= burst + rate * (end - begin) + 1e-6
