"""Buckets at the broker: one allowance for all serving processes, in one atomic step."""

from collections.abc import Sequence

from gateway.broker.keys import Keys
from gateway.broker.scripts import Argument, Pipeline
from gateway.buckets import Charge, Level, Verdict

MICROSECONDS = 1_000_000


class SharedBuckets:
    """Charges requests by the broker's clock. Concurrent requests share round trips."""

    def __init__(self, pipeline: Pipeline, keys: Keys) -> None:
        self._pipeline = pipeline
        self._keys = keys

    async def charge(self, charges: Sequence[Charge]) -> Verdict:
        """Charge all buckets, or none if one of them refuses.

        Cancelling does not give back what was charged.
        Raises `BrokerUnavailable`; it is then unknown whether they were charged.
        """
        arguments: list[Argument] = []
        for each in charges:
            interval = f"{each.interval * MICROSECONDS:.6f}"
            patience = int(each.patience * MICROSECONDS)
            arguments += (interval, each.burst, patience, each.cost)
        keys = [self._keys.limit(each.key) for each in charges]
        wait, *told = await self._pipeline.call("limit", keys, arguments)
        levels = [
            Level(remaining, full_in / MICROSECONDS, early / MICROSECONDS)
            for remaining, full_in, early in zip(told[::3], told[1::3], told[2::3], strict=True)
        ]
        return Verdict(wait / MICROSECONDS, levels)
