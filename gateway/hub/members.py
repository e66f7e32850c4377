"""Members: connections that are told the same, and the loop that tells them."""

import os
from array import array
from collections.abc import Iterator
from itertools import repeat

from gateway.hub.subscription import Connection


class Members:
    """Connections on one kind of wire, each with its descriptor."""

    __slots__ = ("_descriptors", "_sockets")

    def __init__(self) -> None:
        self._descriptors: dict[Connection, int] = {}
        self._sockets: array[int] | None = None
        """The descriptors by themselves, while nobody comes or goes."""

    def __len__(self) -> int:
        return len(self._descriptors)

    def __iter__(self) -> Iterator[Connection]:
        return iter(self._descriptors)

    def __contains__(self, connection: Connection) -> bool:
        return connection in self._descriptors

    def put(self, connection: Connection) -> None:
        """Take a connection in, or take note that its descriptor has changed."""
        self._descriptors[connection] = connection.descriptor
        self._sockets = None

    def drop(self, connection: Connection) -> None:
        """Forget a connection. Harmless if it is none of them."""
        if self._descriptors.pop(connection, None) is not None:
            self._sockets = None

    def write(self, data: bytes) -> None:
        """Write to each: the one loop that runs for every event and every subscriber.

        Straight to the sockets, because the way through a transport takes a sixth more, and in C,
        over bare numbers: a system call leaves little in the caches, so to look at a connection
        takes longer than to call. What a socket does not take, and what is wrong with it, is its
        transport's business.
        """
        sockets, size = self._sockets, len(data)
        if sockets is None:
            direct = [each for each in self._descriptors.values() if each >= 0]
            sockets = self._sockets = array("i", direct)
        taken = array("q")
        writes = map(os.write, sockets, repeat(data))
        while len(taken) < len(sockets):
            try:
                taken.extend(writes)
            except OSError:  # of the one after those that are in; the others are still to come
                taken.append(0)
        if taken != array("q", [size]) * len(self._descriptors):
            self._write_rest(data, iter(taken))

    def _write_rest(self, data: bytes, taken: Iterator[int]) -> None:
        for connection, descriptor in self._descriptors.items():
            sent = next(taken) if descriptor >= 0 else 0
            if sent < len(data):
                connection.write(data[sent:])
