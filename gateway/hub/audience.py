"""Everybody on this process who is subscribed to one channel."""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from gateway.broker.eventlog import Entry
from gateway.hub.members import Members
from gateway.hub.subscription import Connection, Encoding


class Held:
    """Entries that wait while a connection catches up with its past, up to a limit in bytes."""

    __slots__ = ("_limit", "_size", "entries")

    def __init__(self, limit: int) -> None:
        self.entries: list[Entry] = []
        self._size = 0
        self._limit = limit

    def add(self, entries: Iterable[Entry]) -> bool:
        """Keep more entries. Returns False if they are more than the limit allows."""
        for entry in entries:
            self.entries.append(entry)
            self._size += len(entry.event)
        return self._size <= self._limit

    def drop(self, unwanted: Callable[[Entry], bool]) -> None:
        """Forget the entries of which this is true."""
        kept = [entry for entry in self.take() if not unwanted(entry)]
        self.add(kept)

    def take(self) -> list[Entry]:
        """Return all entries and keep none."""
        entries, self.entries, self._size = self.entries, [], 0
        return entries


class Keeper(Protocol):
    """Where events wait for a connection that is not to be written to directly."""

    def add(self, entries: Sequence[Entry]) -> bool:
        """Keep more entries of one channel. Returns False if they are more than may wait."""


class Audience:
    """The connections that hear a channel at once (live), and those for which it waits (held)."""

    __slots__ = ("channel", "held", "live")

    def __init__(self, channel: bytes) -> None:
        self.channel = channel
        self.live: dict[Encoding, Members] = {}
        self.held: dict[Connection, Keeper] = {}

    def __len__(self) -> int:
        return len(self.held) + sum(map(len, self.live.values()))

    def go_live(self, connection: Connection) -> None:
        """From now on, write the channel's events to this connection."""
        self.held.pop(connection, None)
        members = self.live.get(connection.encoding)
        if members is None:
            members = self.live[connection.encoding] = Members()
        members.put(connection)

    def redirect(self, connection: Connection) -> None:
        """The connection's descriptor has changed."""
        members = self.live.get(connection.encoding)
        if members is not None and connection in members:
            members.put(connection)

    def hold(self, connection: Connection, held: Keeper) -> None:
        """From now on, keep the channel's events for this connection."""
        self._leave_live(connection)
        self.held[connection] = held

    def leave(self, connection: Connection) -> None:
        self.held.pop(connection, None)
        self._leave_live(connection)

    def _leave_live(self, connection: Connection) -> None:
        members = self.live.get(connection.encoding)
        if members is not None:
            members.drop(connection)
            if not members:
                del self.live[connection.encoding]


class Batch:
    """Entries that arrived together: each is encoded once for each kind of wire."""

    def __init__(self, epoch: bytes) -> None:
        self._prefix = epoch + b"-"
        self._encoded: dict[tuple[Encoding, int], bytes] = {}
        self.overflowed: list[Connection] = []
        """Connections for which more is held than they may have."""

    def encode(self, encoding: Encoding, entries: Sequence[Entry]) -> bytes:
        """Return the bytes that tell a connection of these entries, in one piece."""
        if len(entries) == 1:
            return self._encode(encoding, entries[0])
        return b"".join([self._encode(encoding, entry) for entry in entries])

    def _encode(self, encoding: Encoding, entry: Entry) -> bytes:
        key = (encoding, entry.number)
        data = self._encoded.get(key)
        if data is None:
            data = self._encoded[key] = encoding.event(self._prefix + entry.id, entry.event)
        return data

    def publish(self, heard: dict[Audience, list[Entry]]) -> None:
        """Write the entries of some channels to everybody who hears them: one write each."""
        if len(heard) == 1:
            ((audience, entries),) = heard.items()
            for encoding, members in audience.live.items():
                members.write(self.encode(encoding, entries))
        else:
            self._publish_several(heard)
        for audience, entries in heard.items():
            for connection, held in audience.held.items():
                if not held.add(entries):
                    self.overflowed.append(connection)

    def _publish_several(self, heard: dict[Audience, list[Entry]]) -> None:
        """Join what a connection hears on several channels, in the order of the log.

        Connections that hear the same channels share the joined bytes.
        """
        wanted: dict[Connection, tuple[Audience, ...]] = {}
        for audience in heard:
            for members in audience.live.values():
                for connection in members:
                    wanted[connection] = (*wanted.get(connection, ()), audience)
        alike: dict[tuple[Encoding, tuple[Audience, ...]], Members] = {}
        for connection, audiences in wanted.items():
            key = (connection.encoding, audiences)
            if key not in alike:
                alike[key] = Members()
            alike[key].put(connection)
        for (encoding, audiences), members in alike.items():
            members.write(self.encode(encoding, _merge(audiences, heard)))


def _merge(audiences: tuple[Audience, ...], heard: dict[Audience, list[Entry]]) -> list[Entry]:
    if len(audiences) == 1:
        return heard[audiences[0]]
    entries = [entry for audience in audiences for entry in heard[audience]]
    return sorted(entries, key=lambda entry: entry.number)
