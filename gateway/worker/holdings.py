"""Which partitions this worker holds: its fair share, as long as it renews its leases."""

import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress

from gateway.broker.leases import Leases
from gateway.broker.streams import PartitionId
from gateway.errors import BrokerUnavailable
from gateway.worker.partitions import Job, Partition

BALANCE = 0.5
"""Seconds between two looks at how the partitions are shared out: what another worker hands back
is taken up by then."""

logger = logging.getLogger(__name__)


def fair_share(partitions: int, workers: int) -> int:
    """Return how many partitions of a stream one of its workers may hold."""
    return -(-partitions // max(workers, 1))


class Holdings:
    """The partitions of one worker, and the leases on them.

    One task calls `tick`, again and again. Everything else here never awaits.
    """

    def __init__(
        self,
        leases: Leases,
        streams: Sequence[str],
        partitions: int,
        *,
        on_change: Callable[[], None],
    ) -> None:
        self._leases = leases
        self._streams = streams
        self._partitions = partitions
        self._on_change = on_change
        self._renew_at = 0.0
        self.leaving = False
        """The worker stops: it keeps what it has until that is done, and takes nothing more."""
        self.held: dict[PartitionId, Partition] = {}
        self._lost: Counter[str] = Counter()
        """Of each stream, the partitions that were lost and not told of yet."""

    @property
    def bytes(self) -> int:
        """Bytes of all the commands that were read and are not settled."""
        return sum(partition.bytes for partition in self.held.values())

    def open(self) -> list[Partition]:
        """Return the partitions of which new commands may be taken."""
        return [each for each in self.held.values() if not each.closing and each.held]

    def lose(self, id: PartitionId) -> None:
        """Give up a partition whose lease is gone: its handlers are cancelled."""
        partition = self.held.get(id)
        if partition is not None and not partition.lost:
            self._lost[id[0]] += 1
            partition.lose()

    def at_work(self) -> list[Job]:
        """Return the commands at which a handler is at work, or their attempt is being settled."""
        jobs = [job for each in self.held.values() for job in each.tasks.values()]
        return [job for job in jobs if job.busy]

    def close(self) -> None:
        """Begin no more commands and take no more partitions: the worker stops."""
        self.leaving = True
        for partition in self.held.values():
            partition.close()

    async def tick(self) -> None:
        """Renew the leases if it is time, hand back what is surplus, take what is free.

        Cancelling is safe: what was taken meanwhile is found by the next one. Raises
        `BrokerUnavailable`.
        """
        await self._renew()
        await self._hand_back()
        if not self.leaving:
            for stream in self._streams:
                await self._balance(stream)

    def expire(self) -> None:
        """Lose the partitions whose leases could not be renewed in time; tell of all lost ones."""
        for partition in list(self.held.values()):
            if not partition.held:
                self.lose(partition.id)
        for stream, count in self._lost.items():  # in one line: all are lost when the broker is
            logger.warning("lost the leases on %d partitions of %r", count, stream)
        self._lost.clear()
        self._forget()

    async def leave(self) -> None:
        """Hand everything back and leave the rolls, so that others go on at once."""
        with suppress(BrokerUnavailable):  # then the leases expire by themselves
            for stream in self._streams:
                # All of them: one may have been taken by a `tick` that did not live to hear of it.
                await self._leases.release([(stream, n) for n in range(self._partitions)])
                await self._leases.resign(stream)
            self.held.clear()

    async def _renew(self) -> None:
        asked = time.monotonic()
        if asked < self._renew_at:
            return
        held = [id for id, partition in self.held.items() if not partition.lost]
        alive = await self._leases.renew(held)
        self._renew_at = asked + self._leases.ttl / 3
        for id in held:
            if id in alive:
                self._prolong(self.held[id], asked + self._leases.ttl)
            else:
                self.lose(id)

    def _prolong(self, partition: Partition, expires: float) -> None:
        """Hold a partition for longer; tell, if it did not look held for a moment.

        The answer came late, and the broker counts from when it was asked. Whoever looked for what
        to read in that moment saw nothing, and waits for a change.
        """
        late = not partition.held
        partition.expires = expires
        if late:
            self._on_change()

    async def _hand_back(self) -> None:
        """Release the partitions that are done with."""
        self._forget()
        done = [id for id, each in self.held.items() if each.closing and each.idle]
        await self._leases.release(done)
        for id in done:
            del self.held[id]

    def _forget(self) -> None:
        """Drop lost partitions. Not before their tasks have ended: handlers may resist for a while,
        and their commands must not run beside themselves."""
        for id in [id for id, each in self.held.items() if each.lost and each.idle]:
            del self.held[id]

    async def _balance(self, stream: str) -> None:
        share = fair_share(self._partitions, await self._leases.enroll(stream))
        mine = [each for each in self.held.values() if each.id[0] == stream and not each.closing]
        for partition in mine[share:]:
            partition.close()
        wanted = share - len(mine)
        if wanted > 0:
            await self._acquire(stream, wanted)

    async def _acquire(self, stream: str, wanted: int) -> None:
        free = [(stream, n) for n in range(self._partitions) if (stream, n) not in self.held]
        random.shuffle(free)  # so that no worker ends up with a pattern of the neediest ones
        expires = time.monotonic() + self._leases.ttl
        for id in await self._leases.acquire(free, count=wanted):
            self.held[id] = Partition(id, expires=expires)
            self._on_change()
