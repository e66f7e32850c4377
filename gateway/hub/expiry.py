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
        self._ends: dict[int, tuple[float, Connection, CloseCode]] = {}
        """By the numbers of the connections."""
        self._heap: list[tuple[float, int]] = []
        """When, and whose number. What is not as in `_ends` does not count any more."""
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._ends)

    def set(self, connection: Connection, at: float | None, code: CloseCode) -> None:
        """Close a connection with this code at a time, in seconds since 1970; None: never."""
        self.forget(connection)
        if at is None or connection.closed:
            return
        self._ends[connection.number] = (at, connection, code)
        heapq.heappush(self._heap, (at, connection.number))
        if self._heap[0][1] == connection.number:
            self._wind()

    def forget(self, connection: Connection) -> None:
        """The connection has ended, or may stay."""
        self._ends.pop(connection.number, None)
        if len(self._heap) > 2 * len(self._ends) + SLACK:
            self._heap = [(at, number) for number, (at, _, _) in self._ends.items()]
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
            at, number = heapq.heappop(self._heap)
            end = self._ends.get(number)
            if end is not None and end[0] == at:
                _, connection, code = self._ends.pop(number)
                connection.goodbye(code, random.randint(0, SPREAD_MS))
        self._wind()
