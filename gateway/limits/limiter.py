"""The limiter: charges what callers do to the limits that concern it, on all nodes together."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from gateway.admission import Admission
from gateway.broker.limits import SharedBuckets
from gateway.buckets import Buckets, Charge, Level, Verdict
from gateway.errors import BrokerUnavailable, GatewayError, RateLimited
from gateway.policy.limits import Deed, Due, Limits, headers
from gateway.settings import Of
from gateway.telemetry.metrics import Metrics

MAX_WAITING = 1024
"""Requests of one process that may wait for their turn; each holds its body in memory."""
MAX_REFUSALS = 16_384
"""Refusals that are remembered. They are of strangers, so there is a bound."""
TRUST = 1.0
"""Seconds for which a refusal is repeated without asking the broker again: no longer, because an
operator may have removed the bucket."""


class Allowance:
    """What a request was allowed, and how the limits stand after it.

    As a context manager it is told with every error that the block raises, too.
    """

    def __init__(self, headers: Mapping[str, str] = MappingProxyType({})) -> None:
        self.headers = headers

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, GatewayError):
            error.headers.update(self.headers)


UNLIMITED = Allowance()


class _Refusal(NamedTuple):
    ask_again_at: float
    lifted_at: float


class Limiter:
    """Charges deeds at the broker; while that is away, at this process's share of each limit.

    What the broker refused stays refused until the time that it named: to ask again before would
    cost a call, and could have no other answer.
    """

    def __init__(
        self,
        limits: Limits,
        shared: SharedBuckets,
        admission: Admission,
        metrics: Metrics,
        *,
        processes: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`processes`: how many share the limits, as far as it is known."""
        self._limits = limits
        self._shared = shared
        self._own = Buckets()
        self._admission = admission
        self._metrics = metrics
        self._processes = processes
        self._clock = clock
        self._refusals: dict[str, _Refusal] = {}
        self.waiting = 0
        """Requests that wait for their turn."""

    def concern(self, of: Of) -> bool:
        """Return whether there is any limit of this kind."""
        return self._limits.concern(of)

    async def charge(self, *deeds: Deed) -> Allowance:
        """Charge deeds that are done together: to all limits that concern them, or to none.

        May wait, where a limit has a queue. Cancelling gives nothing back.

        Raises:
            RateLimited: a limit lets none of it through now.
            Overloaded: too many requests wait for the broker.
        """
        dues = self._limits.due(deeds)
        if not dues:
            return UNLIMITED
        for due in dues:
            if due.charge.cost > due.charge.burst:
                self._metrics.limited.labels(due.limit.name).inc()
                raise _too_large(due)
        patient = self.waiting < MAX_WAITING
        charges = [due.charge if patient else due.charge._replace(patience=0.0) for due in dues]
        verdict = self._remembered(charges) or await self._ask(charges)
        if verdict.retry_after:
            raise self._refusal(dues, verdict)
        if verdict.wait:
            await self._wait(verdict.wait)
        return Allowance(headers(dues, verdict.levels))

    async def _wait(self, seconds: float) -> None:
        self.waiting += 1
        try:
            await asyncio.sleep(seconds)
        finally:
            self.waiting -= 1

    async def _ask(self, charges: Sequence[Charge]) -> Verdict:
        try:
            async with self._admission.admitted():
                verdict = await self._shared.charge(charges)
        except BrokerUnavailable:
            return self._own.charge(self._shares(charges), self._clock())
        if verdict.retry_after:
            self._remember(charges, verdict)
        return verdict

    def _shares(self, charges: Sequence[Charge]) -> list[Charge]:
        """Return what this process may let through by itself: its part of each limit."""
        count = max(1, self._processes())
        return [
            each._replace(
                interval=each.interval * count,
                burst=max(each.cost, each.burst // count),
            )
            for each in charges
        ]

    def _remember(self, charges: Sequence[Charge], verdict: Verdict) -> None:
        now = self._clock()
        if len(self._refusals) >= MAX_REFUSALS:
            self._refusals = {
                key: each for key, each in self._refusals.items() if each.ask_again_at > now
            }
            if len(self._refusals) >= MAX_REFUSALS:
                self._refusals.clear()  # they are asked again, no more
        for charge, level in zip(charges, verdict.levels, strict=True):
            if level.early and charge.cost == 1:  # of several, one may still be let through
                self._refusals[charge.key] = _Refusal(
                    now + min(level.early, TRUST), now + level.early
                )

    def _remembered(self, charges: Sequence[Charge]) -> Verdict | None:
        """Return the refusal of one of the buckets, if there was one that still holds."""
        now = self._clock()
        known = [self._refusals.get(each.key) for each in charges] if self._refusals else []
        if not any(each is not None and now < each.ask_again_at for each in known):
            return None
        return Verdict(
            0.0,
            [
                Level(0, early, early)
                for each in known
                for early in [max(0.0, each.lifted_at - now) if each else 0.0]
            ],
        )

    def _refusal(self, dues: Sequence[Due], verdict: Verdict) -> RateLimited:
        refusing = [
            (due, level) for due, level in zip(dues, verdict.levels, strict=True) if level.early
        ]
        for due, _ in refusing:
            self._metrics.limited.labels(due.limit.name).inc()
        due, level = max(refusing, key=lambda each: each[1].early)
        config = due.limit.config
        error = RateLimited(
            f"expected at most {config.rate} {config.of} per {' and '.join(config.per)}",
            limit=due.limit.name,
            retry_after=level.early,
        )
        error.headers.update(headers(*zip(*refusing, strict=True)))
        return error


def _too_large(due: Due) -> RateLimited:
    return RateLimited(
        f"expected at most {due.charge.burst} {due.limit.config.of} at once, "
        f"but there are {due.charge.cost}",
        limit=due.limit.name,
        retry_after=None,
    )
