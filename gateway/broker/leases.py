"""Leases: who reads a partition. At most one worker at a time, and a dead one only for a while."""

from collections.abc import Sequence

from gateway.broker.keys import Keys
from gateway.broker.scripts import Pipeline


class Leases:
    """The leases of one worker, which all carry its token.

    The token is the fence: a commit checks it in the same step in which it writes, so a worker
    that was paused past its lease can commit nothing.
    """

    def __init__(self, pipeline: Pipeline, keys: Keys, *, worker: str, ttl_ms: int) -> None:
        self._pipeline = pipeline
        self._keys = keys
        self.token = worker
        self.ttl = ttl_ms / 1000
        """Seconds for which a lease lasts unless it is renewed."""
        self._ttl_ms = ttl_ms

    async def enroll(self, stream: str) -> int:
        """Say that this worker lives and consumes `stream`; return how many such workers there are.

        Raises `BrokerUnavailable`.
        """
        answer: int = await self._pipeline.call(
            "enroll", [self._keys.workers(stream)], [self.token, self._ttl_ms]
        )
        return answer

    async def resign(self, stream: str) -> None:
        """Leave the roll of a stream's workers, so that the others take its share at once.

        Whatever this worker asked for earlier was answered by then. Raises `BrokerUnavailable`.
        """
        await self._pipeline.call("resign", [self._keys.workers(stream)], [self.token])

    async def acquire(
        self, partitions: Sequence[tuple[str, int]], *, count: int
    ) -> set[tuple[str, int]]:
        """Take up to `count` of those partitions that nobody holds, and return which.

        Raises `BrokerUnavailable`; it can be asked again, and then tells what was taken.
        """
        if not partitions:
            return set()
        keys = [self._keys.lease(*partition) for partition in partitions]
        answers = await self._pipeline.call("acquire", keys, [self.token, self._ttl_ms, count])
        return {each for each, taken in zip(partitions, answers, strict=True) if taken}

    async def renew(self, partitions: Sequence[tuple[str, int]]) -> set[tuple[str, int]]:
        """Prolong leases, and return those that are still held. Raises `BrokerUnavailable`."""
        if not partitions:
            return set()
        keys = [self._keys.lease(*partition) for partition in partitions]
        answers = await self._pipeline.call("renew", keys, [self.token, self._ttl_ms])
        return {each for each, held in zip(partitions, answers, strict=True) if held}

    async def release(self, partitions: Sequence[tuple[str, int]]) -> None:
        """Give partitions back, those that are still held. Raises `BrokerUnavailable`."""
        if partitions:
            keys = [self._keys.lease(*partition) for partition in partitions]
            await self._pipeline.call("release", keys, [self.token])
