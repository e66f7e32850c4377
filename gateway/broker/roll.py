"""The roll: which serving processes there are, and how much of what each of them holds.

Each writes down its own truth under a key that dies with it, and reads those of the others. So
nobody has to clear away after a process that was killed, and one that was only cut off for a while
writes its truth anew.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from gateway.broker.keys import Keys
from gateway.broker.scripts import Argument, Pipeline

TTL_MS = 9_000
"""Without a sign of life for so long, what a process holds no longer counts: its clients are at
others by then, and would count twice."""
BEAT = TTL_MS / 3000
"""Seconds between signs of life."""


class Wish(NamedTuple):
    """What a process would like to hold more of."""

    name: str
    held: int
    """How much of it the process itself would then hold."""
    most: int
    """How much of it all processes may hold together."""


class Attendance(NamedTuple):
    """What a process hears when it gives a sign of life."""

    known: bool
    """What it holds is written down; otherwise it has to write all of it anew."""
    processes: int


class Roll:
    """One serving process's page, and its view of the others'."""

    def __init__(self, pipeline: Pipeline, keys: Keys, node: str) -> None:
        self._pipeline = pipeline
        self._keys = [keys.roll, keys.held_by(node)]
        self._common: list[Argument] = [keys.holdings, TTL_MS, node]
        self._node = node

    async def attend(self) -> Attendance:
        """Give a sign of life. Raises `BrokerUnavailable`."""
        known, processes = await self._pipeline.call("attend", self._keys, self._common)
        return Attendance(bool(known), processes)

    async def occupy(self, wishes: Sequence[Wish]) -> int | None:
        """Write down what this process holds, unless that is too much on all together.

        Returns None; or the index of a wish that is too much, and then nothing was written.
        Raises `BrokerUnavailable`; it is then unknown whether it was.
        """
        arguments = [*self._common, *(part for wish in wishes for part in wish)]
        refused: int = await self._pipeline.call("occupy", self._keys, arguments)
        return refused - 1 if refused else None

    async def hold(self, held: Mapping[str, int]) -> None:
        """Write down how much this process holds of some things. Raises `BrokerUnavailable`."""
        arguments: list[Argument] = [TTL_MS, *(part for pair in held.items() for part in pair)]
        await self._pipeline.call("hold", self._keys[1:], arguments)

    async def leave(self) -> None:
        """Take this process off the roll, with all that it held. Raises `BrokerUnavailable`."""
        await self._pipeline.call("forsake", self._keys, [self._node])
