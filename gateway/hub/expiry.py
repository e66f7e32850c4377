"""Expiry: until when connections may stay, with one timer for all of them."""

import asyncio
import heapq
import random
import time

from gateway.errors import CloseCode
from gateway.hub.subscription import Connection

LONGEST = 30.0
"""Seconds after which the clock is looked at again, in case that it was set."""
SPREAD_MS = 500
"""Tokens that were issued together expire together: those who come back then do so over a while."""
SLACK = 64
"""Entries of connections that are gone which are not worth clearing away."""


class Expiry:
    """Closes connections whose time is over. Nothing is kept for those that have no end."""

    def __init__(self) -> None:
        self._ends: dict[Connection, tuple[float, int, CloseCode]] = {}
        self._heap: list[tuple[float, int]] = []
        """When, and a serial number; the number says whether it still counts."""
        self._by_serial: dict[int, Connection] = {}
        self._serial = 0
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._ends)

    def set(self, connection: Connection, at: float | None, code: CloseCode) -> None:
        """Close a connection with this code at a time, in seconds since 1970; None: never."""
        self.forget(connection)
        if at is None or connection.closed:
            return
        self._serial += 1
        self._ends[connection] = (at, self._serial, code)
        self._by_serial[self._serial] = connection
        heapq.heappush(self._heap, (at, self._serial))
        if self._heap[0][1] == self._serial:
            self._wind()

    def forget(self, connection: Connection) -> None:
        """The connection has ended, or may stay."""
        known = self._ends.pop(connection, None)
        if known is None:
            return
        del self._by_serial[known[1]]
        if len(self._heap) > 2 * len(self._ends) + SLACK:
            self._heap = [(at, serial) for at, serial, _ in self._ends.values()]
            heapq.heapify(self._heap)

    def _wind(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._heap:
            delay = min(max(self._heap[0][0] - time.time(), 0.0), LONGEST)
            self._timer = asyncio.get_running_loop().call_later(delay, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        now = time.time()
        while self._heap and self._heap[0][0] <= now:
            _, serial = heapq.heappop(self._heap)
            connection = self._by_serial.get(serial)
            if connection is not None:
                code = self._ends[connection][2]
                self.forget(connection)
                connection.goodbye(code, random.randint(0, SPREAD_MS))
        self._wind()
