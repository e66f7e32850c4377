"""What channels retain, read once for all who resume from the same place at the same time."""

import asyncio
from collections.abc import Callable
from functools import partial

from gateway.broker.eventlog import EventLog, Page
from gateway.channels import EntryId, Position
from gateway.events import Retention
from gateway.hub.subscription import Encoding, Standing

PAGE_SIZE = 500
"""Entries to read at a time: a subscriber with a long past takes it in portions."""


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


class History:
    """Reads portions; concurrent wishes for the same one share one read."""

    def __init__(self, log: EventLog, retention: Callable[[str], Retention]) -> None:
        """`retention` tells for how long a channel keeps its events."""
        self._log = log
        self._retention = retention
        self._reads: dict[tuple[str, Position | str], asyncio.Task[Portion]] = {}

    async def read(self, channel: str, after: Position | str, *, since: Position) -> Portion:
        """Return what the channel retains after a position.

        `since` is where the hub stood when it began to hold events for the reader. A read shared
        with others may be older than that, and lack an event that was dispatched in between; then
        it is read once more. If that is older still, the log has lost its end, which the feed will
        find out. Raises `BrokerUnavailable`.
        """
        portion = await self._share(channel, after)
        if portion.page.last < since.id and portion.page.epoch == since.epoch:
            portion = await self._share(channel, after)
        return portion

    async def _share(self, channel: str, after: Position | str) -> Portion:
        key = (channel, after)
        task = self._reads.get(key)
        if task is None or task.done():  # done is too old, though its callback may be yet to run
            task = self._reads[key] = asyncio.create_task(self._read(channel, after))
            task.add_done_callback(partial(self._finished, key))
        return await asyncio.shield(task)  # one reader that leaves does not stop the others

    def _finished(self, key: tuple[str, Position | str], task: asyncio.Task[Portion]) -> None:
        if self._reads.get(key) is task:
            del self._reads[key]

    async def _read(self, channel: str, after: Position | str) -> Portion:
        retention = self._retention(channel)
        return Portion(
            await self._log.read_history(channel, after, retention=retention, count=PAGE_SIZE)
        )
