"""The faults of a run follow from its seed, and leave their victims time to recover."""

from itertools import combinations

import pytest

from tests.e2e.chaos.schedule import DURATIONS, RECOVERY, Fault, Kind, schedule

SEEDS = range(20)


def of(seed: int, seconds: float = 20.0) -> list[Fault]:
    return schedule(seed, seconds, kinds=list(Kind), servers=2, workers=3)


def test_the_same_seed_gives_the_same_faults() -> None:
    assert of(7) == of(7)
    assert len({tuple(of(seed)) for seed in SEEDS}) == len(SEEDS)


@pytest.mark.parametrize("seed", SEEDS)
def test_faults_are_in_order_and_within_their_bounds(seed: int) -> None:
    faults = of(seed)
    assert [fault.at for fault in faults] == sorted(fault.at for fault in faults)
    for fault in faults:
        shortest, longest = DURATIONS[fault.kind]
        assert 0 < fault.at <= 20
        assert shortest - 0.01 <= fault.seconds <= longest + 0.01
        assert fault.number < {"server": 2, "worker": 3}.get(fault.kind.victim, 1)


@pytest.mark.parametrize("seed", SEEDS)
def test_no_victim_is_hit_while_it_suffers(seed: int) -> None:
    for first, second in combinations(of(seed), 2):
        if (first.kind.victim, first.number) == (second.kind.victim, second.number):
            assert second.at >= first.at + first.seconds + RECOVERY - 0.02


@pytest.mark.parametrize("seed", SEEDS)
def test_each_kind_comes_before_any_comes_again(seed: int) -> None:
    kinds = [fault.kind for fault in of(seed, 120.0)]
    assert len(kinds) > 2 * len(Kind)
    assert set(kinds[: len(Kind)]) == set(kinds[len(Kind) : 2 * len(Kind)]) == set(Kind)
