"""What goes wrong, and when: a pure function of a seed."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What can go wrong. The part before the colon is what it happens to."""

    LOG_PAUSED = "log:paused"
    LOG_KILLED = "log:killed"
    LOG_DISK_FULL = "log:disk-full"
    LOG_OUT_OF_MEMORY = "log:out-of-memory"
    SERVER_KILLED = "server:killed"
    SERVER_PAUSED = "server:paused"
    SERVER_RESTARTED = "server:restarted"
    """Told to stop by SIGTERM and started again, as by a deploy."""
    SERVER_CUT = "server:cut"
    """It loses every connection to the log."""
    SERVER_ISOLATED = "server:isolated"
    """What goes between it and the log is held back."""
    WORKER_KILLED = "worker:killed"
    WORKER_PAUSED = "worker:paused"
    WORKER_RESTARTED = "worker:restarted"
    WORKER_CUT = "worker:cut"
    WORKER_ISOLATED = "worker:isolated"
    NETWORK_CUT = "network:cut"
    """Every client loses its connection."""
    NETWORK_SLOW = "network:slow"
    """What goes between clients and gateway comes later."""
    WIRES_SLOW = "wires:slow"
    """What goes between gateway and log comes later."""

    @property
    def victim(self) -> str:
        return self.partition(":")[0]


LEASE = 2.0
"""Seconds: `[worker] lease` in these runs. Who is away for longer loses its partitions."""

DURATIONS: dict[Kind, tuple[float, float]] = {
    Kind.LOG_PAUSED: (0.5, 3.0),
    Kind.LOG_KILLED: (0.2, 2.0),
    Kind.LOG_DISK_FULL: (0.5, 2.5),
    Kind.LOG_OUT_OF_MEMORY: (0.5, 2.5),
    Kind.SERVER_KILLED: (0.2, 2.0),
    Kind.SERVER_PAUSED: (0.5, 3.0),
    Kind.SERVER_RESTARTED: (0.0, 0.5),
    Kind.SERVER_CUT: (0.0, 0.0),
    Kind.SERVER_ISOLATED: (0.5, 3.0),
    Kind.WORKER_KILLED: (0.2, 2.0),
    Kind.WORKER_PAUSED: (1.0, LEASE + 2.5),
    Kind.WORKER_RESTARTED: (0.0, 0.5),
    Kind.WORKER_CUT: (0.0, 0.0),
    Kind.WORKER_ISOLATED: (1.0, LEASE + 2.5),
    Kind.NETWORK_CUT: (0.0, 0.0),
    Kind.NETWORK_SLOW: (0.5, 2.0),
    Kind.WIRES_SLOW: (0.5, 2.0),
}
"""Seconds between which each lasts. Some go on past what the victim or its peers will wait."""

RECOVERY = 2.0
"""Seconds after a fault before the same victim is hit again: a process must start in that time."""

GAPS = (0.2, 1.2)
"""Seconds between which one fault follows another. Those of different victims overlap."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong."""

    at: float
    """Seconds after the beginning."""
    kind: Kind
    number: int
    """Which of the victims, where there are several."""
    seconds: float
    """How long it lasts."""

    def __str__(self) -> str:
        return f"{self.at:5.1f} s  {self.kind} {self.number} for {self.seconds:.1f} s"


def schedule(
    seed: int, seconds: float, *, kinds: Sequence[Kind], servers: int, workers: int
) -> list[Fault]:
    """Return the faults of one run, in their order. All have begun after `seconds`.

    The kinds are dealt like cards, so that each comes before any comes again. No victim is hit
    while it still suffers.
    """
    deck = _Deck(random.Random(seed), kinds, {"server": servers, "worker": workers})
    faults: list[Fault] = []
    at = 0.5
    while (at := at + deck.chance.uniform(*GAPS)) <= seconds:
        fault = deck.deal(round(at, 2))
        if fault is not None:
            faults.append(fault)
    return faults


class _Deck:
    """The kinds in a random order, and since when each of the victims is well."""

    def __init__(
        self, chance: random.Random, kinds: Sequence[Kind], crowd: Mapping[str, int]
    ) -> None:
        self.chance = chance
        self._kinds = kinds
        self._crowd = crowd
        self._hand: list[Kind] = []
        self._well_at: dict[tuple[str, int], float] = {}

    def deal(self, at: float) -> Fault | None:
        """Return the next fault for a victim that is well, or None if all of them suffer."""
        if not self._hand:
            self._hand = self.chance.sample(self._kinds, len(self._kinds))
        for kind in self._hand:
            victims = [(kind.victim, number) for number in range(self._crowd.get(kind.victim, 1))]
            well = [each for each in victims if self._well_at.get(each, 0.0) <= at]
            if well:
                self._hand.remove(kind)
                victim = self.chance.choice(well)
                seconds = round(self.chance.uniform(*DURATIONS[kind]), 2)
                self._well_at[victim] = at + seconds + RECOVERY
                return Fault(at, kind, victim[1], seconds)
        return None
