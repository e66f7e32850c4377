"""Turns: what only a few may do at a time is done for one address after another.

Who asks for much waits behind itself, and keeps nobody else from it: each address (each /48 of
IPv6, which one customer may have) has a line of its own, and of each line one is served before any
gets a second one. When too many wait, the longest line loses who came last.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.addresses import site


class NoTurn(Exception):
    """Too many wait, and most of them for the same address."""


class Turns:
    """So many turns at a time, and a line for each address that waits for one."""

    def __init__(self, at_once: int, most: int) -> None:
        """`most` may wait."""
        self._free = at_once
        self._most = most
        self._waiting = 0
        self._lines: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @asynccontextmanager
    async def turn(self, address: str, *, patience: float) -> AsyncIterator[None]:
        """Hold a turn. Waits for it, for `patience` seconds at most.

        Raises:
            NoTurn: there was none in time, or there is no room to wait for one.
        """
        if self._free:
            self._free -= 1
        else:
            await self._wait(site(address), patience)
        try:
            yield
        finally:
            self._pass_on()

    async def _wait(self, whose: str, patience: float) -> None:
        if self._waiting >= self._most:
            self._make_room(whose)
        turn = asyncio.get_running_loop().create_future()
        self._lines.setdefault(whose, deque()).append(turn)
        self._waiting += 1
        try:
            async with asyncio.timeout(patience):
                await turn
        except TimeoutError:
            self._leave(whose, turn)
            raise NoTurn from None
        except asyncio.CancelledError:
            self._leave(whose, turn)
            raise

    def _make_room(self, whose: str) -> None:
        """Send the last one of the longest line away. Raises `NoTurn` if that is who comes."""
        longest = max(self._lines, key=lambda each: len(self._lines[each]))
        if len(self._lines[longest]) <= len(self._lines.get(whose, ())) + 1:
            raise NoTurn
        turn = self._lines[longest][-1]
        self._remove(longest, turn)
        if not turn.done():
            turn.set_exception(NoTurn())

    def _leave(self, whose: str, turn: "asyncio.Future[None]") -> None:
        if turn.done() and not turn.cancelled() and turn.exception() is None:
            self._pass_on()  # it was given the turn in the moment in which it gave up
        elif turn in self._lines.get(whose, ()):
            self._remove(whose, turn)

    def _remove(self, whose: str, turn: "asyncio.Future[None]") -> None:
        line = self._lines[whose]
        line.remove(turn)
        self._waiting -= 1
        if not line:
            del self._lines[whose]

    def _pass_on(self) -> None:
        """Give a turn that has ended to the first of the line whose turn it is."""
        while self._lines:
            whose, line = next(iter(self._lines.items()))
            turn = line[0]
            self._remove(whose, turn)
            if turn.done():  # cancelled, and did not get to leave yet
                continue
            if line:
                self._lines.move_to_end(whose)
            turn.set_result(None)
            return
        self._free += 1
