"""The turnstile: new connections come in a few at a time, and who is inside is served meanwhile.

After a restart thousands come back in one moment. The event loop takes whatever is ready in one
turn: without this, nobody would hear an event before all of them were let in.
"""

import asyncio
from collections import deque
from collections.abc import Callable

AT_ONCE = 32
"""Connections that come in in one turn of the event loop: some 10 ms of work."""


class Turnstile:
    """Lets new connections in, in the order in which they came."""

    def __init__(self, at_once: int = AT_ONCE) -> None:
        self._at_once = at_once
        self._room = at_once
        self._waiting: deque[Callable[[], None]] = deque()
        self._turning = False
        self.closed = False
        """Nobody comes in any more: the server stops."""

    def enter(self, come_in: Callable[[], None]) -> bool:
        """Return whether one may come in at once. If not, `come_in` is called when it may."""
        self._turn_soon()
        if not self._room:
            self._waiting.append(come_in)
            return False
        self._room -= 1
        return True

    def _turn_soon(self) -> None:
        if not self._turning:
            self._turning = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._turning = False
        self._room = self._at_once
        while self._waiting and self._room:
            self._room -= 1
            self._waiting.popleft()()
        if self._waiting:
            self._turn_soon()
