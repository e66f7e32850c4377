"""A partition in a worker's hands: which of its commands may run, and which wait for another.

Commands of one key form a lane and go one at a time, in the order of their entries. A command
without a key has a lane of its own. One that waits for its next attempt rests: either at the head
of its lane, which then waits with it, or aside, and then it comes back into its lane later. What
rests takes no task and no slot, so that no command of another key ever waits for it.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from gateway.broker.streams import Delivery, PartitionId
from gateway.commands import Envelope

SUSPECT = 2
"""Attempts that ended with the death of their worker, after which a command is tried alone: it may
be what kills them, and the commands beside it would use up their attempts with it."""

OVERHEAD = 1024
"""Bytes that a command in a worker's hands takes beside its own."""


class Job:
    """One command that was read."""

    __slots__ = ("busy", "crashes", "delivery", "envelope", "mistake", "parked", "taken", "turn")

    def __init__(self, delivery: Delivery, *, taken: bool = True) -> None:
        self.delivery = delivery
        self.taken = taken
        """It is pending for this worker. Otherwise its first attempt takes it."""
        self.mistake = ""
        """Why the entry is no command; empty if it is one."""
        self.crashes = 0
        """The number of the attempt whose worker died; 0 if none did."""
        self.busy = False
        """An attempt is under way that is not yet settled."""
        self.parked = False
        """Its bytes were put away; they have to be read again before it runs."""
        self.turn: asyncio.Event | None = None
        """Set when the one before it in its lane is settled, if it was begun with that settling."""
        try:
            self.envelope = _decode(delivery.envelope)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            self.mistake = f"expected a command but {error}"
            self.envelope = _nameless(delivery)

    async def await_turn(self) -> None:
        """Wait until the one before it is settled."""
        if self.turn is not None:
            await self.turn.wait()

    @property
    def weight(self) -> int:
        """Bytes that it takes here."""
        return OVERHEAD + len(self.delivery.envelope)

    @property
    def position(self) -> tuple[int, int]:
        """Where its entry is in the partition."""
        ms, _, number = self.delivery.entry.partition(b"-")
        return int(ms), int(number)

    @property
    def suspect(self) -> bool:
        """Whether it may be what killed its workers."""
        return self.crashes >= SUSPECT

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
        """What they take."""
        self.tasks: dict[asyncio.Task[Any], Job] = {}
        """The tasks at work on its lanes, each with the command it is at."""
        self._resting: dict[Job, asyncio.TimerHandle] = {}
        self._lanes: dict[str | bytes, deque[Job]] = {}
        self._known: set[bytes] = set()

    @property
    def held(self) -> bool:
        """Whether the lease is surely still this worker's. A process that was paused sees it."""
        return not self.lost and time.monotonic() < self.expires

    @property
    def certain(self) -> bool:
        """Whether new commands may be taken: all that are older are known here."""
        return self.held and not self.closing and not self.uncertain

    @property
    def idle(self) -> bool:
        """Whether nothing of it is under way."""
        return not self.tasks

    def knows(self, delivery: Delivery) -> bool:
        """Return whether a command is here already."""
        return delivery.entry in self._known

    def may_begin(self, job: Job) -> bool:
        """Return whether a command that was not taken up yet would wait for no other one."""
        return job.lane not in self._lanes and not self.knows(job.delivery)

    def add(self, job: Job) -> bool:
        """Take a command up, after all that are there. Returns whether it opens a new lane."""
        self._known.add(job.delivery.entry)
        self.size += 1
        self.bytes += job.weight
        lane = self._lanes.get(job.lane)
        if lane is None:
            self._lanes[job.lane] = deque([job])
            return True
        lane.append(job)
        return False

    def next_begins(self, job: Job) -> Job | None:
        """Return the one behind a command, the first of its lane, which is about to be settled.

        It may be begun, but does nothing before its `turn`. From now on nothing comes before it.
        """
        lane = self._lanes[job.lane]
        if self.closing or len(lane) == 1 or lane[1].parked:
            return None
        lane[1].turn = asyncio.Event()
        return lane[1]

    def finish(self, job: Job) -> Job | None:
        """Remove a command, the first of its lane, and return the one that may run next."""
        self._known.discard(job.delivery.entry)
        self.size -= 1
        self.bytes -= job.weight
        return self._leave_lane(job)

    def rest(
        self, job: Job, seconds: float, *, keeps_order: bool, wake: Callable[[Job], object]
    ) -> Job | None:
        """Leave a command, the first of its lane, alone for a while.

        `wake` is called when it may run again. Returns the one of its key that may run now: none if
        the order is to be kept.
        """
        following = None if keeps_order else self._leave_lane(job)

        def rise() -> None:
            del self._resting[job]
            if keeps_order or self._rejoin(job):
                wake(job)

        self._resting[job] = asyncio.get_running_loop().call_later(seconds, rise)
        return following

    def _leave_lane(self, job: Job) -> Job | None:
        lane = self._lanes[job.lane]
        lane.popleft()
        if lane:
            return lane[0]
        del self._lanes[job.lane]
        return None

    def _rejoin(self, job: Job) -> bool:
        """Put a command back before all newer ones, but not before what was begun.

        Returns whether it opens a new lane.
        """
        lane = self._lanes.get(job.lane)
        if lane is None:
            self._lanes[job.lane] = deque([job])
            return True
        place = 1
        while place < len(lane) and (lane[place].turn or lane[place].position < job.position):
            place += 1
        lane.insert(place, job)
        return False

    def park(self, job: Job) -> None:
        """Put the bytes of a command away that waits: they are in the log."""
        if not job.parked:
            self.bytes -= job.weight
            job.parked = True
            job.delivery = job.delivery._replace(envelope=b"")
            job.envelope = msgspec.structs.replace(job.envelope, data=msgspec.Raw(b"null"))
            self.bytes += job.weight

    def unpark(self, job: Job, delivery: Delivery) -> None:
        """Have the bytes of a command again, because its turn has come."""
        self.bytes -= job.weight
        job.parked = False
        job.delivery = delivery
        if not job.mistake:
            job.envelope = _decode(delivery.envelope)
        self.bytes += job.weight

    def close(self) -> None:
        """Begin nothing more: what waits stays pending in the log, what runs is left to end."""
        self._end()
        for task, job in self.tasks.items():
            if not job.busy:
                task.cancel()

    def lose(self) -> None:
        """Cancel everything: the lease is gone."""
        self._end()
        self.lost = True
        for task in self.tasks:
            task.cancel()

    def _end(self) -> None:
        self.closing = True
        for timer in self._resting.values():
            timer.cancel()
        self._resting.clear()
