"""What was seen during a run: the structures that the runs fill in and the checker reads.

All times are seconds of the monotonic clock.
"""

from typing import Any, NamedTuple

import msgspec

from gateway.channels import EntryId, Position

ALL = "work"
"""The channel on which every effect is told."""
BRIEF = "brief"
"""The same with a short history: who is away for long has to be told of a gap."""


class Task(msgspec.Struct, kw_only=True):
    """The data of a command."""

    number: int
    """No two tasks of a run have the same."""
    key: str
    kind: str = "do"
    seconds: float = 0.0
    """That the handler takes."""


class Answer(NamedTuple):
    """The gateway said that it has accepted a command."""

    asked: float
    at: float
    id: str


class Sent(msgspec.Struct, kw_only=True):
    """A command as its sender saw it, with all the times that it was sent again."""

    task: Task
    sent: float
    """When it was sent for the first time."""
    answers: list[Answer] = []
    """More than one if it was sent again under its idempotency key: all should be alike."""
    refusal: str = ""
    """The code of a refusal by which the gateway said that it was not, and will not be, accepted.

    Without a refusal and without answers nobody knows: it may be processed, or not."""


class Run(msgspec.Struct, kw_only=True):
    """One run of the handler."""

    pid: int
    command: str
    attempt: int
    number: int
    at: float


class Entry(msgspec.Struct, frozen=True):
    """An entry of the event log."""

    id: EntryId
    number: int
    """Counts all entries of the log."""
    channel: str
    event: dict[str, Any]


class Life(msgspec.Struct, frozen=True):
    """What a log held at its end. Each time that it is replaced another life begins."""

    epoch: str
    entries: list[Entry]


class Loss(msgspec.Struct, frozen=True):
    """The log was replaced, by an empty one or by an older one."""

    since: float
    """What was written from then on was lost ..."""
    until: float
    """... up to then."""


class Subscribed(msgspec.Struct, frozen=True):
    """The answer to a subscription to one channel."""

    at: float
    channel: str
    asked: Position | None
    """From where on it was asked for; None to begin with what comes now."""
    position: Position
    recovered: bool


class Delivered(msgspec.Struct, frozen=True):
    """An event came."""

    at: float
    channel: str
    position: Position
    event: str
    """Its id."""


class Diary(msgspec.Struct):
    """All that one subscriber was told, in its order, over all of its connections."""

    name: str
    channels: list[str]
    notes: list[Subscribed | Delivered] = []
    connections: int = 0
    from_start: bool = False
    """It asked for everything that is retained, and nothing was trimmed yet."""


class Watch(msgspec.Struct, kw_only=True):
    """What was seen of one process of the gateway."""

    name: str
    deaths: list[str] = []
    """How it ended when nobody had ended it."""
    starts: int = 1
    most_lines: int = 0
    """Lines that it wrote to its log in one second, at most; a traceback is part of its line."""
    said: list[str] = []
    """The last lines of its log."""
    idling: list[tuple[float, float]] = []
    """While the log was away: for how many seconds, and the processor time that it used."""


class History(msgspec.Struct, kw_only=True):
    """Everything that was seen of one run."""

    sent: list[Sent]
    runs: list[Run]
    lives: list[Life]
    """The last one is the log as it was when all had come to rest."""
    losses: list[Loss] = []
    diaries: list[Diary]
    statuses: dict[str, str]
    """Of each accepted command, as `GET /commands/{id}` told it at the end."""
    watches: list[Watch] = []
    rest: float = 0.0
    """Seconds from the last fault until all had come to rest; infinite if it never came."""
