"""Everybody on this process who is subscribed to one channel."""

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from gateway.broker.eventlog import Entry
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
        self.live: dict[Encoding, dict[Connection, int]] = {}
        """Those on each kind of wire, with their descriptors."""
        self.held: dict[Connection, Keeper] = {}

    def __len__(self) -> int:
        return len(self.held) + sum(map(len, self.live.values()))

    def go_live(self, connection: Connection) -> None:
        """From now on, write the channel's events to this connection."""
        self.held.pop(connection, None)
        self.live.setdefault(connection.encoding, {})[connection] = connection.descriptor

    def redirect(self, connection: Connection) -> None:
        """The connection's descriptor has changed."""
        members = self.live.get(connection.encoding, {})
        if connection in members:
            members[connection] = connection.descriptor

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
            members.pop(connection, None)
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
                _write(members, self.encode(encoding, entries))
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
        alike: dict[tuple[Encoding, tuple[Audience, ...]], dict[Connection, int]] = {}
        for connection, audiences in wanted.items():
            members = alike.setdefault((connection.encoding, audiences), {})
            members[connection] = connection.descriptor
        for (encoding, audiences), members in alike.items():
            _write(members, self.encode(encoding, _merge(audiences, heard)))


def _write(members: dict[Connection, int], data: bytes) -> None:
    """Write to each member: the one loop that runs for every event and every subscriber.

    Straight to the sockets, because the way through a transport takes a sixth more. What a socket
    does not take, and what is wrong with it, is its transport's business.
    """
    write, size = os.write, len(data)
    for connection, descriptor in members.items():
        if descriptor < 0:
            connection.write(data)
            continue
        try:
            sent = write(descriptor, data)
        except OSError:
            sent = 0
        if sent < size:
            connection.write(data[sent:])


def _merge(audiences: tuple[Audience, ...], heard: dict[Audience, list[Entry]]) -> list[Entry]:
    if len(audiences) == 1:
        return heard[audiences[0]]
    entries = [entry for audience in audiences for entry in heard[audience]]
    return sorted(entries, key=lambda entry: entry.number)
