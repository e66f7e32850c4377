"""The feed: tails the event log into the hub."""

import asyncio
import logging
import random
from collections.abc import Iterator
from contextlib import suppress
from typing import Protocol

from gateway.broker.eventlog import NODE_TTL, Entry, EventLog, Lost
from gateway.channels import EntryId
from gateway.errors import BrokerUnavailable
from gateway.hub.hub import SLOTS, Hub

logger = logging.getLogger(__name__)

READ_COUNT = 1000
"""Entries of one read. What arrived together leaves together, so load makes writes cheaper."""
BLOCK_MS = 5000
"""How long a read waits at the broker before it is asked again."""
CHUNK = 256 << 10
"""Bytes of events written at once, so that one batch cannot fill everybody's write buffer."""
IDLE_MS = 10_000
"""An idle log gets an entry for nobody this often: positions stay younger than any retention."""
RETRY_MAX = 2.0
"""Seconds. The longest pause between attempts to reach a broker that is away: as long as requests
wait for it at most, so that who posts a command also sees what comes of it."""


class Notices(Protocol):
    """What serving processes tell each other through the log, between the events."""

    channel: bytes
    """The channel of such entries, to which nobody can subscribe."""

    def hear(self, notice: bytes) -> None:
        """Do what an entry says."""

    async def read(self) -> None:
        """Learn anew all that was told so far, for some of it was missed.

        Raises `BrokerUnavailable`.
        """


class Feed:
    """Reads every entry of the event log once and in order, and has the hub dispatch it."""

    def __init__(
        self,
        log: EventLog,
        hub: Hub,
        node: str,
        *,
        heartbeat: float,
        window_ms: int,
        notices: Notices | None = None,
    ) -> None:
        """`node` names this process at the broker; `heartbeat` is in seconds."""
        self._log = log
        self._hub = hub
        self._node = node
        self._notices = notices
        self._missed = False
        """Notices may have been among what was missed."""
        self._heartbeat = heartbeat
        self._window_ms = window_ms
        self._number: int | None = None
        """Of the newest entry that was dispatched."""
        self.connected = False
        """The broker answered last time: what readiness is about."""

    async def start(self) -> None:
        """Join the log at its end. Raises `BrokerUnavailable`."""
        await self._begin()
        self.connected = True

    async def run(self) -> None:
        """Tail the log until cancelled, then leave it. A broker that is away is waited for."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._tail())
            tasks.create_task(self._upkeep())
            tasks.create_task(self._beat())

    async def leave(self) -> None:
        """Give the place in the log back. With the broker away, others clear it away later."""
        with suppress(Lost, BrokerUnavailable):
            await self._log.leave(self._node)

    async def _tail(self) -> None:
        pause = 0.0
        while True:
            try:
                if not self.connected:
                    await self._rejoin()
                while True:
                    entries = await self._log.read(self._node, count=READ_COUNT, block_ms=BLOCK_MS)
                    pause = 0.0
                    if entries:
                        self._take(entries)
                    if self._missed:
                        await self._read_notices()
            except (Lost, BrokerUnavailable) as error:
                if self.connected:
                    logger.warning("the feed lost the broker: %s", error)
                self.connected = False
                await asyncio.sleep(random.uniform(0, pause))
                pause = min(max(0.1, pause * 2), RETRY_MAX)

    async def _rejoin(self) -> None:
        """Go on where the hub stands, if that place is still there; otherwise begin anew."""
        here = self._hub.here()
        joined = await self._log.join(self._node, here.id)
        if joined.epoch != here.epoch or not joined.known:
            logger.warning("the log was replaced: all subscribers have to resume")
            await self._begin()
        else:
            await self._read_notices()
        self.connected = True
        logger.info("the feed is back at the broker")

    async def _begin(self) -> None:
        await self._log.tick(IDLE_MS)  # so that who subscribes now does not get an old position
        joined = await self._log.join(self._node)
        self._stand(joined.epoch, joined.after)
        self._number = joined.number
        await self._read_notices()  # after joining: of what comes now the tail hears

    def _stand(self, epoch: str, position: EntryId) -> None:
        """Have the hub stand where the log does not join up with what the subscribers have.

        They are sent away in the same moment: a heartbeat in between would move them there, and
        they would come back from beyond what they missed.
        """
        self._hub.begin(epoch, position)
        self._hub.interrupt(window_ms=self._window_ms)

    async def _read_notices(self) -> None:
        if self._notices is not None:
            await self._notices.read()
        self._missed = False

    def _take(self, entries: list[Entry]) -> None:
        first, last = entries[0].number, entries[-1].number
        if self._number is not None and first != self._number + 1:
            missed = first - self._number - 1
            gap = "the feed missed %d entries" if missed > 0 else "the log lost its last %d entries"
            logger.warning(gap, abs(missed))
            self._stand(self._hub.epoch, self._hub.position)
            self._missed = True
        self._number = last
        for chunk in _chunks(entries):
            self._hub.dispatch(chunk)
        if self._notices is not None:
            for entry in entries:
                if entry.channel == self._notices.channel:
                    self._notices.hear(entry.event)

    async def _upkeep(self) -> None:
        """Show that this process lives, keep positions young, clear away after the dead."""
        while True:
            await asyncio.sleep(random.uniform(0.8, 1.0) * NODE_TTL / 3)
            try:
                await self._log.sign_of_life(self._node)
                await self._log.tick(IDLE_MS)
                for node in await self._log.reap():
                    logger.info("cleared away after the process %s, which died", node)
            except (Lost, BrokerUnavailable):
                continue  # the tail says so

    async def _beat(self) -> None:
        """The one timer for the heartbeats of all connections."""
        slot = 0
        while True:
            await asyncio.sleep(self._heartbeat / SLOTS)
            self._hub.beat(slot)
            slot = (slot + 1) % SLOTS


def _chunks(entries: list[Entry]) -> Iterator[list[Entry]]:
    """Cut a batch where its events would be more than `CHUNK` bytes."""
    if sum(len(entry.event) for entry in entries) <= CHUNK:
        yield entries
        return
    chunk: list[Entry] = []
    size = 0
    for entry in entries:
        if chunk and size + len(entry.event) > CHUNK:
            yield chunk
            chunk, size = [], 0
        chunk.append(entry)
        size += len(entry.event)
    yield chunk
