"""What channels retain, read once for all who resume from the same place at the same time."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from gateway.broker.eventlog import PAGE_BYTES, EventLog, Page
from gateway.channels import EntryId, Position
from gateway.events import Retention
from gateway.hub.subscription import Encoding, Standing

PAGE_SIZE = 500
"""Entries to read at a time: a subscriber with a long past takes it in portions."""
REACH_MS = 5 * 60_000
"""How far back somebody can resume who may not read the history, in milliseconds: long enough for a
network to come back, and for a server to be replaced."""


class Portion:
    """A page of a channel's history, encoded once for each kind of wire."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.ids = [EntryId.parse(id) for id, _ in page.entries]
        self._encoded: dict[Encoding, list[bytes]] = {}
        self._joined: dict[Encoding, bytes] = {}

    @property
    def complete(self) -> bool:
        """Nothing follows it, as of the time of reading."""
        return not self.page.more

    def standing(self) -> Standing:
        """Return where a subscription that begins with this portion stands."""
        return Standing(str(Position(self.page.epoch, self.page.after)), self.page.recovered)

    def encoded(self, encoding: Encoding) -> list[bytes]:
        """Return the bytes of each event."""
        if encoding not in self._encoded:
            prefix = self.page.epoch.encode() + b"-"
            self._encoded[encoding] = [
                encoding.event(prefix + id, event) for id, event in self.page.entries
            ]
        return self._encoded[encoding]

    def joined(self, encoding: Encoding) -> bytes:
        """Return the bytes of all events."""
        if encoding not in self._joined:
            self._joined[encoding] = b"".join(self.encoded(encoding))
        return self._joined[encoding]


class _Key(NamedTuple):
    """What is the same in reads that can be shared."""

    channel: str
    after: Position | str
    enough: int
    reserved: bool


class History:
    """Reads portions; concurrent wishes for the same one share one read."""

    def __init__(self, log: EventLog, retention: Callable[[str], Retention]) -> None:
        """`retention` tells for how long a channel keeps its events."""
        self._log = log
        self._retention = retention
        self._reads: dict[_Key, asyncio.Task[Portion]] = {}

    async def read(
        self,
        channel: str,
        after: Position | str,
        *,
        since: Position,
        enough: int = PAGE_BYTES,
        reserved: bool = False,
    ) -> Portion:
        """Return what the channel retains after a position, up to the event that makes it `enough`.

        Of a history that is `reserved` the reader is given what passed a moment ago, and no more.
        `since` is where the hub stood when it began to hold events for the reader. A read shared
        with others may be older than that, and lack an event that was dispatched in between; then
        it is read once more. If that is older still, the log has lost its end, which the feed will
        find out. Raises `BrokerUnavailable`.
        """
        key = _Key(channel, after, enough, reserved)
        portion = await self._share(key)
        if portion.page.last < since.id and portion.page.epoch == since.epoch:
            portion = await self._share(key)
        return portion

    async def _share(self, key: _Key) -> Portion:
        task = self._reads.get(key)
        if task is None or task.done():  # done is too old, though its callback may be yet to run
            task = self._reads[key] = asyncio.create_task(self._read(key))
            task.add_done_callback(partial(self._finished, key))
        return await asyncio.shield(task)  # one reader that leaves does not stop the others

    def _finished(self, key: _Key, task: asyncio.Task[Portion]) -> None:
        if self._reads.get(key) is task:
            del self._reads[key]

    async def _read(self, key: _Key) -> Portion:
        page = await self._log.read_history(
            key.channel,
            key.after,
            retention=self._retention(key.channel),
            count=PAGE_SIZE,
            enough=key.enough,
            reach_ms=REACH_MS if key.reserved else None,
        )
        return Portion(page)
