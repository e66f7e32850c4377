"""The arithmetic of limits: the generic cell rate algorithm (ITU-T I.371, annex A), without I/O.

A bucket is one number: the moment at which it is full again. Each request moves that by the time
that the rate gives it, and comes too early if it would then lie further ahead than the burst
reaches. `lua/limit.lua` does the same at the broker; here it is done for one process alone.
"""

from collections.abc import Sequence
from typing import NamedTuple

CAPACITY = 65_536
"""Buckets that one process keeps. Their names come from strangers, so there is a bound."""

ROUNDING = 1e-6
"""Seconds by which sums may be wrong: the last of a burst shall not fail because of that."""


class Charge(NamedTuple):
    """What one request costs one bucket."""

    key: str
    """The bucket."""
    interval: float
    """Seconds between two requests, at the rate."""
    burst: int
    """Requests at once, after a rest."""
    patience: float = 0.0
    """Seconds by which a request may come too early, if it then waits."""
    cost: int = 1
    """In requests; never more than the burst."""


class Level(NamedTuple):
    """How a bucket stands after a charge, or after the refusal of one."""

    remaining: int
    """Requests that it would still let through at once."""
    full_in: float
    """Seconds until it has all of its burst again."""
    early: float = 0.0
    """Seconds until it would let through what it refused; 0 if it refused nothing."""


class Verdict(NamedTuple):
    """What came of a request that was charged to buckets: to all of them or to none."""

    wait: float
    """Seconds that the request has to wait for its turn; it is paid for already."""
    levels: Sequence[Level]

    @property
    def retry_after(self) -> float:
        """Seconds until it can be let through; 0 if it was."""
        return max((level.early for level in self.levels), default=0.0)


class Buckets:
    """The buckets of one process. `now` is in seconds on a clock that only goes forward."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._full_at: dict[str, float] = {}
        self._capacity = capacity

    def __len__(self) -> int:
        return len(self._full_at)

    def charge(self, charges: Sequence[Charge], now: float) -> Verdict:
        """Charge all buckets, or none if one of them refuses."""
        full_at = [max(self._full_at.get(each.key, 0.0), now) for each in charges]
        delays = [_delay(each, at, now) for at, each in zip(full_at, charges, strict=True)]
        early = [
            max(0.0, delay - each.patience) for delay, each in zip(delays, charges, strict=True)
        ]
        if any(early):
            return Verdict(0.0, list(map(_level, charges, full_at, [now] * len(charges), early)))
        full_at = [
            at + each.interval * each.cost for at, each in zip(full_at, charges, strict=True)
        ]
        self._make_room(now)
        self._full_at.update(zip((each.key for each in charges), full_at, strict=True))
        levels = list(map(_level, charges, full_at, [now] * len(charges), early))
        return Verdict(max(delays, default=0.0), levels)

    def delay(self, charge: Charge, now: float) -> float:
        """Return for how many seconds a bucket would refuse this. Charges nothing."""
        full_at = self._full_at.get(charge.key)
        if full_at is None:
            return 0.0
        return _delay(charge, full_at, now)

    def _make_room(self, now: float) -> None:
        """Forget full buckets where there are too many; if all are in use, the oldest."""
        if len(self._full_at) < self._capacity:
            return
        self._full_at = {key: at for key, at in self._full_at.items() if at > now}
        surplus = len(self._full_at) - self._capacity // 2
        for key in list(self._full_at)[: max(0, surplus)]:
            del self._full_at[key]


def _delay(charge: Charge, full_at: float, now: float) -> float:
    """Return by how many seconds a charge comes too early."""
    delay = full_at - now - charge.interval * (charge.burst - charge.cost)
    return delay if delay > ROUNDING else 0.0


def _level(charge: Charge, full_at: float, now: float, early: float) -> Level:
    full_in = full_at - now
    left = charge.burst - full_in / charge.interval
    return Level(max(0, int(left + 1e-6)), full_in, early)
