"""A partition in a worker's hands: which of its commands may run, and which wait for another.

Commands of one key form a lane and go one at a time, in the order of their entries. A command
without a key has a lane of its own.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from gateway.broker.streams import Delivery, PartitionId
from gateway.commands import Envelope

QUARANTINE = 2
"""Attempts that ended with the death of their worker, after which a command is tried alone: it may
be what kills them, and the commands beside it would use up their attempts with it."""


class Job:
    """One command that was read."""

    __slots__ = ("busy", "crashes", "delivery", "envelope", "mistake")

    def __init__(self, delivery: Delivery) -> None:
        self.delivery = delivery
        self.mistake = ""
        """Why the entry is no command; empty if it is one."""
        self.crashes = 0
        """The number of the attempt whose worker died; 0 if none did."""
        self.busy = False
        """An attempt is under way that is not yet settled."""
        try:
            self.envelope = _decode(delivery.envelope)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            self.mistake = f"expected a command but {error}"
            self.envelope = _nameless(delivery)

    @property
    def suspect(self) -> bool:
        """Whether it may be what killed its workers."""
        return self.crashes >= QUARANTINE

    @property
    def lane(self) -> str | bytes:
        """What it shares with the commands that it must not overtake."""
        return self.envelope.partitionkey or self.delivery.entry


_decode: Callable[[bytes], Envelope] = msgspec.json.Decoder(Envelope).decode


def _nameless(delivery: Delivery) -> Envelope:
    """Stand in for the envelope of an entry that has none, so that it can become a dead letter."""
    entry = delivery.entry.decode()
    return Envelope(
        id=f"{delivery.stream}-{delivery.partition}-{entry}", type="", source="/gateway", time=""
    )


class Partition:
    """One partition that this worker holds.

    It is read only when it is `open`, begins commands until it is `closing`, and is `lost` when
    the lease is gone: then nothing that its commands still do can be committed.
    """

    def __init__(self, id: PartitionId, *, expires: float) -> None:
        self.id = id
        self.expires = expires
        """On the monotonic clock: until then nobody else can have the lease."""
        self.newest = b"0-0"
        """The id of the newest entry that was taken."""
        self.uncertain = True
        """There may be pending commands that are not known here: reclaim before anything is read.

        So it is in the beginning, and after a read whose answer was lost."""
        self.full = False
        """It was left out of a read because too much of it waits here already."""
        self.closing = False
        self.lost = False
        self.size = 0
        """Commands that were read and are not settled."""
        self.bytes = 0
        self.tasks: dict[asyncio.Task[Any], Job] = {}
        """The tasks at work on its lanes, each with the command it is at."""
        self._lanes: dict[str | bytes, deque[Job]] = {}
        self._known: set[bytes] = set()

    @property
    def held(self) -> bool:
        """Whether the lease is surely still this worker's. A process that was paused sees it."""
        return not self.lost and time.monotonic() < self.expires

    @property
    def idle(self) -> bool:
        """Whether nothing of it is under way."""
        return not self.tasks

    def knows(self, delivery: Delivery) -> bool:
        """Return whether a command is here already."""
        return delivery.entry in self._known

    def add(self, job: Job) -> bool:
        """Take a command up, after all that are there. Returns whether it opens a new lane."""
        self._known.add(job.delivery.entry)
        self.size += 1
        self.bytes += len(job.delivery.envelope)
        lane = self._lanes.get(job.lane)
        if lane is None:
            self._lanes[job.lane] = deque([job])
            return True
        lane.append(job)
        return False

    def finish(self, job: Job) -> Job | None:
        """Remove a command, the first of its lane, and return the one that may run next."""
        self._known.discard(job.delivery.entry)
        self.size -= 1
        self.bytes -= len(job.delivery.envelope)
        lane = self._lanes[job.lane]
        lane.popleft()
        if lane:
            return lane[0]
        del self._lanes[job.lane]
        return None

    def close(self) -> None:
        """Begin nothing more: what waits stays pending in the log, what runs is left to end."""
        self.closing = True
        for task, job in self.tasks.items():
            if not job.busy:
                task.cancel()

    def lose(self) -> None:
        """Cancel everything: the lease is gone."""
        self.closing = self.lost = True
        for task in self.tasks:
            task.cancel()
