"""What is run: a setup, which together with its seed decides everything that can be decided."""

import random
from dataclasses import dataclass
from enum import StrEnum

from tests.e2e.chaos.schedule import Fault, Kind, schedule


class Log(StrEnum):
    """The server that holds the log."""

    VALKEY = "Valkey"
    REDIS_7 = "Redis 7"
    REDIS_8 = "Redis 8"
    EMBEDDED = "embedded"
    """The one that the processes of the gateway run and share."""


class Drama(StrEnum):
    """What happens in the middle of a run, besides its faults."""

    NONE = "none"
    EMPTIED = "emptied"
    """The log is replaced by an empty one."""
    SET_BACK = "set back"
    """The log is replaced by an older copy of it."""


LOG_KINDS = {kind for kind in Kind if kind.victim == "log"}
WIRE_KINDS = {
    Kind.SERVER_CUT,
    Kind.SERVER_ISOLATED,
    Kind.WORKER_CUT,
    Kind.WORKER_ISOLATED,
    Kind.WIRES_SLOW,
}


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What is run, and for how long."""

    seed: int
    seconds: float
    """In which faults begin."""
    log: Log
    fsync: str = "always"
    """Of a server that the harness runs: `always`, `everysec` or `no`."""
    drama: Drama = Drama.NONE
    servers: int = 2
    workers: int = 3

    def __str__(self) -> str:
        parts = [self.log, *([self.fsync] if self.log is not Log.EMBEDDED else [])]
        return ", ".join(parts + ([self.drama] if self.drama is not Drama.NONE else []))

    @property
    def faults(self) -> list[Fault]:
        """What goes wrong, and when."""
        return schedule(
            self.seed, self.seconds, kinds=self.kinds, servers=self.servers, workers=self.workers
        )

    @property
    def kinds(self) -> list[Kind]:
        """What can be done to this log, and makes sense besides the drama."""
        without: set[Kind] = set()
        if self.drama is not Drama.NONE:
            without |= LOG_KINDS
        if self.log is Log.EMBEDDED:  # no cable leads to it, and its limits are not the harness's
            without |= WIRE_KINDS | {Kind.LOG_DISK_FULL, Kind.LOG_OUT_OF_MEMORY}
        return [kind for kind in Kind if kind not in without]


def drawn(seed: int, seconds: float) -> Setup:
    """Return a setup that follows from a seed."""
    chance = random.Random(f"setup {seed}")
    log = chance.choice(list(Log))
    (drama,) = chance.choices(list(Drama), [0.6, 0.2, 0.2])
    return Setup(
        seed=seed,
        seconds=seconds,
        log=log,
        fsync=chance.choice(["always", "everysec", "no"]),
        drama=Drama.NONE if log is Log.EMBEDDED else drama,
        workers=chance.choice([2, 3]),
    )
