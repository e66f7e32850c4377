"""What a run came to, in one row."""

from collections.abc import Sequence
from typing import NamedTuple

from tests.e2e.chaos.checker import LONG_ENOUGH
from tests.e2e.chaos.history import Delivered, Diary, History, Subscribed
from tests.e2e.chaos.setups import Setup


class Row(NamedTuple):
    """The figures of one run; the names of the fields are the heads of the columns."""

    seed: int
    log: str
    faults: int
    accepted: int
    refused: int
    unknown: int
    """Commands of which their senders never learned what became of them."""
    attempts: int
    entries: int
    deliveries: int
    reconnects: int
    gaps: int
    """Times that a subscriber was told of a gap."""
    rest: str
    """From the last fault until all had come to rest."""
    lines: int
    """Written by one process to its log in one second, at most."""
    idle: str
    """Processor time of one process while the log was away, at most, as a share of a core."""
    wrong: int


def row(setup: Setup, history: History, wrong: Sequence[str]) -> Row:
    """Return what a run came to."""
    return Row(
        seed=setup.seed,
        log=str(setup),
        faults=len(setup.faults),
        accepted=sum(bool(sent.answers) for sent in history.sent),
        refused=sum(bool(sent.refusal) for sent in history.sent),
        unknown=sum(not sent.answers and not sent.refusal for sent in history.sent),
        attempts=len(history.runs),
        entries=sum(len(life.entries) for life in history.lives),
        deliveries=sum(isinstance(n, Delivered) for d in history.diaries for n in d.notes),
        reconnects=sum(diary.connections for diary in history.diaries),
        gaps=sum(map(_gaps, history.diaries)),
        rest=f"{history.rest:.1f} s",
        lines=max(watch.most_lines for watch in history.watches),
        idle=f"{_idle(history):.0%}",
        wrong=len(wrong),
    )


def _gaps(diary: Diary) -> int:
    return sum(isinstance(note, Subscribed) and not note.recovered for note in diary.notes)


def _idle(history: History) -> float:
    absences = [each for watch in history.watches for each in watch.idling]
    return max((used / away for away, used in absences if away >= LONG_ENOUGH), default=0.0)


def markdown(rows: Sequence[Row]) -> str:
    """Return the rows as a table of Markdown, with the sums of what can be added up."""
    total = Row._make(_total(name, [getattr(each, name) for each in rows]) for name in Row._fields)
    lines = [Row._fields, ["---"] * len(Row._fields), *rows, total]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def _total(name: str, values: Sequence[object]) -> object:
    numbers = [value for value in values if isinstance(value, int)]
    if name in ("seed", "lines") or not numbers:
        return ""
    return f"**{sum(numbers):,}**"
