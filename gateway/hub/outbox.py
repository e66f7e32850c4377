"""What waits for a connection that takes events at a pace of its own, or hears only the latest.

Everything that such a connection is subscribed to goes through one outbox, and leaves it whole and
in the order of the log. So what it was told stays one position for all of its channels: nothing
that is older waits behind what was sent.
"""

from collections.abc import Sequence

from gateway.broker.eventlog import Entry
from gateway.hub.subscription import AT_ONCE, Connection, Pace


class Outbox:
    """The events that wait for one connection, up to a limit in bytes."""

    __slots__ = (
        "_connection",
        "_interval",
        "_limit",
        "_paces",
        "_pending",
        "_size",
        "_waiting",
        "due",
    )

    def __init__(self, connection: Connection, pending: set[Connection], *, limit: int) -> None:
        """While anything waits here, `connection` is in `pending`."""
        self._connection = connection
        self._pending = pending
        self._limit = limit
        self._paces: dict[bytes, Pace] = {}
        self._interval = 0.0
        self._waiting: dict[int | tuple[bytes, bytes], Entry] = {}
        self._size = 0
        self.due = 0.0
        """On the loop's clock: when the next delivery may leave."""

    def set_pace(self, channel: bytes, pace: Pace) -> None:
        """Take the events of a channel at this pace from now on."""
        if pace == AT_ONCE:
            self._paces.pop(channel, None)
        else:
            self._paces[channel] = pace
        self._interval = max((each.interval for each in self._paces.values()), default=0.0)

    @property
    def needed(self) -> bool:
        """Whether any channel is heard at a pace of its own."""
        return bool(self._paces)

    def add(self, entries: Sequence[Entry]) -> bool:
        """Keep more entries of one channel. Returns False if they are more than may wait."""
        channel = entries[0].channel
        conflate = self._paces.get(channel, AT_ONCE).conflate
        for entry in entries:
            key = (channel, entry.key) if conflate and entry.key else entry.number
            superseded = self._waiting.get(key)
            if superseded is not None:
                self._size -= len(superseded.event)
            self._waiting[key] = entry
            self._size += len(entry.event)
        self._pending.add(self._connection)
        return self._size <= self._limit

    def drop(self, channel: bytes) -> None:
        """Forget what waits of a channel."""
        for key, entry in list(self._waiting.items()):
            if entry.channel == channel:
                del self._waiting[key]
                self._size -= len(entry.event)
        if not self._waiting:
            self._pending.discard(self._connection)

    def take(self, now: float) -> list[Entry]:
        """Return everything, in the order of the log, and keep nothing."""
        entries = sorted(self._waiting.values(), key=lambda entry: entry.number)
        self._waiting.clear()
        self._size = 0
        self._pending.discard(self._connection)
        self.due = now + self._interval
        return entries
