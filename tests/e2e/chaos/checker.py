"""The checker: what of the promises was not kept, according to a history. Pure.

Nothing lost, nothing twice, in order, and a gap never without a word. Each check returns sentences
that say what is wrong; no sentence, no fault.
"""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from gateway.channels import EntryId, Position
from tests.e2e.chaos.history import (
    ALL,
    BRIEF,
    Delivered,
    Diary,
    Entry,
    History,
    Life,
    Loss,
    Sent,
    Subscribed,
    Watch,
)

FINAL = {"succeeded", "failed", "dead-lettered"}
OUTCOME = {"do": "succeeded", "flaky": "succeeded", "reject": "failed", "poison": "dead-lettered"}
"""The final status of each kind of task."""

EFFECT = "work.done"
"""The type of the event in which a handler's effect consists."""

LONGEST_REST = 45.0
"""Seconds in which everything must have come to rest. On an idle machine it takes two or three."""
MOST_LINES = 30
"""Lines that a process may write to its log in a second."""
IDLE_SHARE, IDLE_EXTRA = 0.4, 0.3
"""Of a core, and seconds besides, that a process may use while the log is away."""
LONG_ENOUGH = 1.0
"""Seconds for which the log must have been away for the processor time to say something."""


def check(history: History) -> list[str]:
    """Return a sentence for everything that is wrong."""
    return [
        *check_log(history.lives[-1]),
        *check_answers(history),
        *check_lives(history),
        *check_effects(history),
        *check_order(history),
        *check_runs(history),
        *check_statuses(history),
        *(wrong for diary in history.diaries for wrong in check_diary(diary, history)),
        *(wrong for watch in history.watches for wrong in check_process(watch)),
        *check_rest(history),
    ]


# The log


def check_log(life: Life) -> Iterator[str]:
    """Entries are numbered without a hole, and their ids only grow."""
    for number, entry in enumerate(life.entries, 1):
        if entry.number != number:
            yield f"entry {entry.id} of the log has the number {entry.number} instead of {number}"
    for one, other in pairwise(life.entries):
        if other.id <= one.id:
            yield f"entry {other.id} of the log follows {one.id}"


def _fates(history: History) -> dict[str, list[tuple[str, int]]]:
    """Return the statuses of each command, each with the number of attempts, in their order."""
    fates: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for entry in history.lives[-1].entries:
        if entry.channel.startswith("commands:"):
            data = entry.event["data"]
            fates[data["id"]].append((data["status"], data["attempts"]))
    return fates


def _effects(history: History, channel: str = ALL) -> list[Entry]:
    return [
        entry
        for entry in history.lives[-1].entries
        if entry.channel == channel and entry.event["type"] == EFFECT
    ]


def _safe(sent: Sent, losses: Sequence[Loss]) -> bool:
    """Tell whether a command was accepted, and not by a log that was replaced since."""
    return any(
        not any(loss.since <= answer.at and answer.asked <= loss.until for loss in losses)
        for answer in sent.answers[-1:]
    )


# Commands


def check_answers(history: History) -> Iterator[str]:
    """Who asks again is told of the same command, and never of a refusal after an acceptance."""
    for sent in history.sent:
        for one, other in pairwise(sent.answers):
            replaced = any(one.asked <= loss.until <= other.at for loss in history.losses)
            if one.id != other.id and not replaced:
                yield f"task {sent.task.number} was accepted as {one.id} and again as {other.id}"
        if sent.answers and sent.refusal:
            yield f"task {sent.task.number} was accepted, and refused ({sent.refusal})"


def check_lives(history: History) -> Iterator[str]:
    """Every accepted command lived once, from its acceptance to its outcome, without a repetition.

    That is asked of all commands that the log knows, whether their senders heard of them or not.
    """
    fates = _fates(history)
    for id, life in fates.items():
        yield from _check_life(id, life)
    for sent in history.sent:
        if not _safe(sent, history.losses):
            continue
        id = sent.answers[-1].id
        if id not in fates:
            yield f"task {sent.task.number}, accepted as {id}, is lost: the log does not know it"
        elif fates[id][-1][0] != OUTCOME[sent.task.kind]:
            yield f"task {sent.task.number} ({sent.task.kind}) came to {fates[id][-1]}"


def _check_life(id: str, life: list[tuple[str, int]]) -> Iterator[str]:
    statuses = [status for status, _ in life]
    told = ", ".join(f"{status} {attempts}" for status, attempts in life)
    if statuses[0] != "accepted" or statuses.count("accepted") != 1:
        yield f"command {id} was not accepted once and first: {told}"
    if statuses[-1] not in FINAL or sum(status in FINAL for status in statuses) != 1:
        yield f"command {id} did not come to one final status at its end: {told}"
    started = [attempts for status, attempts in life if status == "started"]
    if started != list(range(1, len(started) + 1)):
        yield f"the attempts at command {id} are not counted one by one: {told}"
    for (_, before), (status, attempts) in pairwise(life):
        if attempts != before + (status == "started"):
            yield f"command {id} settled an attempt that was not its newest: {told}"
    if len(set(life)) != len(life):
        yield f"command {id} has a status twice: {told}"


def check_effects(history: History) -> Iterator[str]:
    """Accepted is processed, exactly once in effect; refused is not processed; unknown is either.

    And the effect was told once on each of its channels.
    """
    done = Counter(entry.event["data"]["number"] for entry in _effects(history))
    tasks = {sent.task.number: sent for sent in history.sent}
    for number in done.keys() - tasks.keys():
        yield f"task {number} was processed, and nobody sent it"
    for number, sent in tasks.items():
        works = OUTCOME[sent.task.kind] == "succeeded"
        if done[number] > 1:
            yield f"task {number} was processed {done[number]} times"
        if done[number] and (sent.refusal or not works):
            yield f"task {number} ({sent.task.kind}) was processed, but it was refused"
        if not done[number] and works and _safe(sent, history.losses):
            yield f"task {number} was accepted and not processed"
    everywhere = Counter(entry.event["data"]["number"] for entry in _effects(history, BRIEF))
    for key in {sent.task.key for sent in history.sent}:
        one = Counter(e.event["data"]["number"] for e in _effects(history, f"{ALL}:{key}"))
        for number, sent in tasks.items():
            if sent.task.key == key and not done[number] == one[number] == everywhere[number]:
                yield f"task {number} was not told on all of its channels"


def check_order(history: History) -> Iterator[str]:
    """Of one key, what was accepted before something else was sent is processed before it."""
    tasks = {sent.task.number: sent for sent in history.sent}
    newest: dict[str, Sent] = {}
    for entry in _effects(history):
        sent = tasks.get(entry.event["data"]["number"])
        if sent is None:
            continue
        before = newest.setdefault(sent.task.key, sent)
        if sent.answers and sent.answers[0].at < before.sent:
            yield f"task {sent.task.number} was processed after task {before.task.number}"
        newest[sent.task.key] = max(before, sent, key=lambda each: each.sent)


def check_runs(history: History) -> Iterator[str]:
    """What succeeded was run by that very attempt, and nothing that was refused was ever run."""
    refused = {sent.task.number for sent in history.sent if sent.refusal}
    for run in history.runs:
        if run.number in refused:
            yield f"task {run.number} was refused, and run as attempt {run.attempt}"
    ran = {(run.command, run.attempt) for run in history.runs}
    for id, life in _fates(history).items():
        if life[-1][0] in FINAL - {"dead-lettered"} and (id, life[-1][1]) not in ran:
            yield f"command {id} came to {life[-1]} without a run of that attempt"


def check_statuses(history: History) -> Iterator[str]:
    """Whoever asks is told the outcome that the log holds."""
    fates = _fates(history)
    for id, status in history.statuses.items():
        known = fates[id][-1][0] if id in fates else "unknown"
        if status != known:
            yield f"command {id} is {status} to who asks, and {known} in the log"


# Subscribers


class _Stretch(NamedTuple):
    """What a subscriber was told of a channel between two gaps that it was told of."""

    start: Position
    gap: bool
    """There is one before it: events from any place on may follow."""
    events: list[Delivered]

    @property
    def end(self) -> EntryId:
        return self.events[-1].position.id if self.events else self.start.id


def check_diary(diary: Diary, history: History) -> Iterator[str]:
    """On each channel a subscriber was told everything, once and in the order of the log.

    At each gap it was told that there is one, and not where there is none.
    """
    for channel in diary.channels:
        for wrong in _check_channel(diary, channel, history):
            yield f"{diary.name} on {channel!r}: {wrong}"


def _check_channel(diary: Diary, channel: str, history: History) -> Iterator[str]:
    notes = [note for note in diary.notes if note.channel == channel]
    if not notes or isinstance(notes[0], Delivered):
        yield "its first subscription was not answered first"
        return
    stretches: list[_Stretch] = []
    for note in notes:
        if isinstance(note, Delivered):
            stretches[-1].events.append(note)
        elif not stretches or not note.recovered:
            stretches.append(_Stretch(note.position, not note.recovered, []))
        elif note.position != note.asked:
            yield f"it asked for what follows {note.asked} and got what follows {note.position}"
    ids = [_ids(life, channel) for life in history.lives]
    for stretch in stretches:
        yield from _check_stretch(stretch, history.lives, ids)
    if diary.from_start:
        yield from _check_beginning(stretches[0].start, history.lives, ids)
    yield from _check_end(stretches[-1], history.lives[-1], ids[-1])
    if not history.losses:
        yield from _check_alarms(notes, ids[-1])


def _ids(life: Life, channel: str) -> list[tuple[EntryId, str]]:
    return [(e.id, e.event["id"]) for e in life.entries if e.channel == channel]


def _after(id: EntryId, reference: list[tuple[EntryId, str]]) -> int:
    """Return the index of the first entry after a position."""
    return bisect_right(reference, id, key=lambda each: each[0])


def _check_stretch(
    stretch: _Stretch, lives: Sequence[Life], ids: Sequence[list[tuple[EntryId, str]]]
) -> Iterator[str]:
    """It must be a contiguous piece of one of the logs that there were."""
    got = [(each.position.id, each.event) for each in stretch.events]
    epochs = {stretch.start.epoch, *(each.position.epoch for each in stretch.events)}
    complaints = []
    for life, reference in zip(lives, ids, strict=True):
        if epochs == {life.epoch}:
            begin = _after(stretch.start.id, reference)
            if stretch.gap and got:
                begin = max(begin, _after(got[0][0], reference) - 1)
            wanted = reference[begin : begin + len(got)]
            if got == wanted:
                return
            complaints.append(_difference(got, wanted))
    yield complaints[-1] if complaints else f"its positions are of the logs {sorted(epochs)}"


def _difference(got: list[tuple[EntryId, str]], wanted: list[tuple[EntryId, str]]) -> str:
    for number, each in enumerate(got):
        if number >= len(wanted) or each != wanted[number]:
            before = f"after {got[number - 1][1]} " if number else "at first "
            expected = wanted[number][1] if number < len(wanted) else "nothing"
            twice = " (a second time)" if each in got[:number] else ""
            return f"{before}it got {each[1]} at {each[0]}{twice} instead of {expected}"
    raise AssertionError("unreachable")


def _check_beginning(
    start: Position, lives: Sequence[Life], ids: Sequence[list[tuple[EntryId, str]]]
) -> Iterator[str]:
    for life, reference in zip(lives, ids, strict=True):
        if life.epoch == start.epoch and reference and start.id >= reference[0][0]:
            yield f"it asked for everything and got what follows {start}"


def _check_end(
    stretch: _Stretch, life: Life, reference: list[tuple[EntryId, str]]
) -> Iterator[str]:
    missing = [event for id, event in reference if id > stretch.end]
    if missing and stretch.start.epoch == life.epoch:
        yield f"at the end it lacks {len(missing)} events, beginning with {missing[0]}"
    elif stretch.start.epoch != life.epoch:
        yield f"at the end it is at the log {stretch.start.epoch} and not at {life.epoch}"


def _check_alarms(
    notes: Sequence[Subscribed | Delivered], reference: list[tuple[EntryId, str]]
) -> Iterator[str]:
    """A gap that it was told of must be one: something is missing there."""
    for note, following in zip(notes, [*notes[1:], None], strict=True):
        if isinstance(note, Delivered) or note.recovered or note.asked is None:
            continue
        at = _after(note.asked.id, reference)
        successor = reference[at][0] if at < len(reference) else None
        if isinstance(following, Subscribed):
            continue  # it was cut off before anything came: the next answer tells
        if successor == (following.position.id if following else None):
            yield f"it was told of a gap after {note.asked}, where nothing is missing"


# Processes


def check_process(watch: Watch) -> Iterator[str]:
    """It needed no restart, kept its log short, and did nothing while there was nothing to do."""
    for death in watch.deaths:
        yield f"{watch.name} ended by itself: {death}"
    if watch.most_lines > MOST_LINES:
        yield f"{watch.name} wrote {watch.most_lines} lines to its log in one second"
    for seconds, used in watch.idling:
        if seconds >= LONG_ENOUGH and used > IDLE_SHARE * seconds + IDLE_EXTRA:
            yield f"{watch.name} worked for {used:.1f} s while the log was away for {seconds:.1f} s"


def check_rest(history: History) -> Iterator[str]:
    """All came to rest by itself."""
    if history.rest > LONGEST_REST:
        yield f"it took {history.rest:.0f} s until all had come to rest"
