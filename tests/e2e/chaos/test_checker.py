"""The checker finds what it is there to find: hand-made histories, each with one thing wrong."""

from collections.abc import Callable

import msgspec
import pytest

from gateway.channels import EntryId, Position
from tests.e2e.chaos.checker import check
from tests.e2e.chaos.history import (
    ALL,
    BRIEF,
    Answer,
    Delivered,
    Diary,
    Entry,
    History,
    Life,
    Loss,
    Run,
    Sent,
    Subscribed,
    Task,
    Watch,
)

EPOCH = "e1"


class Log:
    """Writes a log as the gateway would."""

    def __init__(self, epoch: str = EPOCH) -> None:
        self.life = Life(epoch, [])

    def append(self, channel: str, id: str, type: str, data: object) -> None:
        number = len(self.life.entries) + 1
        event = {"id": id, "type": type, "data": data}
        self.life.entries.append(Entry(EntryId(number, 0), number, channel, event))

    def tell(self, id: str, *statuses: tuple[str, int]) -> None:
        for status, attempts in statuses:
            data = {"id": id, "status": status, "attempts": attempts}
            self.append(f"commands:{id}", f"{id}-{status}-{attempts}", f"command.{status}", data)

    def done(self, id: str, task: Task) -> None:
        for channel in (ALL, f"{ALL}:{task.key}", BRIEF):
            self.append(channel, f"{id}-1", "work.done", {"number": task.number, "key": task.key})


def good() -> History:
    """Six commands of two keys, one of them refused and one unknown, and a subscriber."""
    log = Log()
    tasks = [Task(number=n, key="ab"[n % 2]) for n in range(1, 5)]
    sent = [
        Sent(
            task=task,
            sent=float(task.number),
            answers=[accepted(task.number + 0.5, f"c{task.number}")],
        )
        for task in tasks
    ]
    for task in tasks:
        log.tell(f"c{task.number}", ("accepted", 0), ("started", 1))
        log.done(f"c{task.number}", task)
        log.tell(f"c{task.number}", ("succeeded", 1))
    sent.append(Sent(task=Task(number=5, key="a"), sent=5.0, refusal="validation-failed"))
    sent.append(Sent(task=Task(number=6, key="a"), sent=6.0))
    return History(
        sent=sent,
        runs=[Run(pid=1, command=f"c{n}", attempt=1, number=n, at=float(n)) for n in range(1, 5)],
        lives=[log.life],
        diaries=[diary(log.life)],
        statuses={f"c{n}": "succeeded" for n in range(1, 5)},
        watches=[Watch(name="serve 0", idling=[(2.0, 0.3)])],
        rest=2.0,
    )


def diary(life: Life, channel: str = ALL) -> Diary:
    """A subscriber who was there from the beginning, and came back once in the middle."""
    events = [
        Delivered(1.0, channel, Position(life.epoch, entry.id), entry.event["id"])
        for entry in life.entries
        if entry.channel == channel
    ]
    middle = events[1].position
    start = Position(life.epoch, EntryId(0, 0))
    return Diary(
        "somebody",
        [channel],
        [
            Subscribed(0.0, channel, None, start, recovered=True),
            *events[:2],
            Subscribed(2.0, channel, middle, middle, recovered=True),
            *events[2:],
        ],
        from_start=True,
    )


def accepted(at: float, id: str) -> Answer:
    return Answer(at, at, id)


Mutation = Callable[[History], None]
MUTATIONS: list[tuple[str, Mutation]] = []


def wrong(complaint: str) -> Callable[[Mutation], Mutation]:
    """Mark what makes a history wrong, and what must be said about it."""

    def mark(mutation: Mutation) -> Mutation:
        MUTATIONS.append((complaint, mutation))
        return mutation

    return mark


def rewritten(history: History, rewrite: Callable[[Log], None]) -> None:
    """Write further entries into the log, and let the subscriber see them."""
    log = Log()
    log.life = history.lives[-1]
    rewrite(log)
    history.diaries[0] = diary(log.life)


def renumber(life: Life) -> None:
    life.entries[:] = [
        msgspec.structs.replace(entry, id=EntryId(n, 0), number=n)
        for n, entry in enumerate(life.entries, 1)
    ]


def without(history: History, unwanted: Callable[[Entry], bool]) -> None:
    life = history.lives[-1]
    life.entries[:] = [entry for entry in life.entries if not unwanted(entry)]
    renumber(life)
    history.diaries[0] = diary(life)


@wrong("is lost: the log does not know it")
def _accepted_and_lost(history: History) -> None:
    without(history, lambda entry: "c2" in entry.event["id"])


@wrong("task 2 was accepted and not processed")
def _succeeded_without_its_effect(history: History) -> None:
    without(history, lambda entry: entry.event["id"] == "c2-1")


@wrong("task 2 was processed 2 times")
def _effect_twice(history: History) -> None:
    rewritten(history, lambda log: log.done("c2", Task(number=2, key="a")))


@wrong("was not told on all of its channels")
def _effect_on_one_channel_only(history: History) -> None:
    without(history, lambda entry: entry.channel == "work:a" and entry.event["id"] == "c2-1")


@wrong("task 5 (do) was processed, but it was refused")
def _refused_and_processed(history: History) -> None:
    def process(log: Log) -> None:
        log.tell("c5", ("accepted", 0), ("started", 1))
        log.done("c5", Task(number=5, key="a"))
        log.tell("c5", ("succeeded", 1))

    rewritten(history, process)


@wrong("task 9 was processed, and nobody sent it")
def _invented(history: History) -> None:
    rewritten(history, lambda log: log.done("c9", Task(number=9, key="a")))


@wrong("task 5 was refused, and run")
def _refused_and_run(history: History) -> None:
    history.runs.append(Run(pid=1, command="c5", attempt=1, number=5, at=5.0))


@wrong("without a run of that attempt")
def _succeeded_without_a_run(history: History) -> None:
    del history.runs[0]


@wrong("did not come to one final status at its end")
def _never_finished(history: History) -> None:
    without(history, lambda entry: entry.event["type"] == "command.succeeded")


@wrong("did not come to one final status at its end")
def _finished_twice(history: History) -> None:
    rewritten(history, lambda log: log.tell("c3", ("failed", 1)))


@wrong("was not accepted once and first")
def _finished_without_acceptance(history: History) -> None:
    rewritten(history, lambda log: log.tell("c7", ("started", 1), ("succeeded", 1)))


@wrong("are not counted one by one")
def _attempt_not_counted(history: History) -> None:
    rewritten(history, lambda log: log.tell("c7", ("accepted", 0), ("started", 2), ("failed", 2)))


@wrong("settled an attempt that was not its newest")
def _settled_by_a_worker_that_lost_it(history: History) -> None:
    rewritten(
        history,
        lambda log: log.tell(
            "c7", ("accepted", 0), ("started", 1), ("started", 2), ("succeeded", 1)
        ),
    )


@wrong("has a status twice")
def _status_twice(history: History) -> None:
    rewritten(history, lambda log: log.tell("c4", ("succeeded", 1)))


@wrong("task 1 (poison) came to ('succeeded', 1)")
def _wrong_outcome(history: History) -> None:
    history.sent[0].task.kind = "poison"


@wrong("task 2 was processed after task 4")
def _order_of_a_key(history: History) -> None:
    first, second = history.sent[1], history.sent[3]
    first.sent, first.answers, second.sent, second.answers = (
        second.sent,
        [accepted(second.answers[0].at, "c2")],
        first.sent,
        [accepted(first.answers[0].at, "c4")],
    )
    first.task, second.task = second.task, first.task
    first.answers, second.answers = [accepted(4.5, "c4")], [accepted(2.5, "c2")]
    entries = history.lives[-1].entries
    for entry in entries:
        if entry.event["type"] == "work.done" and entry.event["data"]["number"] in (2, 4):
            entry.event["data"]["number"] = 6 - entry.event["data"]["number"]


@wrong("was accepted as c2 and again as c9")
def _two_ids_for_one_key(history: History) -> None:
    history.sent[1].answers.insert(1, accepted(3.0, "c9"))


@wrong("was accepted, and refused")
def _accepted_and_refused(history: History) -> None:
    history.sent[1].refusal = "key-reused"


@wrong("is started to who asks, and succeeded in the log")
def _stale_status(history: History) -> None:
    history.statuses["c1"] = "started"


@wrong("of the log has the number")
def _hole_in_the_numbers(history: History) -> None:
    entries = history.lives[-1].entries
    entries[5:] = [msgspec.structs.replace(e, number=e.number + 1) for e in entries[5:]]


@wrong("of the log follows")
def _log_runs_backwards(history: History) -> None:
    entries = history.lives[-1].entries
    entries[0] = msgspec.structs.replace(entries[0], id=EntryId(3, 0))


@wrong("instead of c2-1")
def _missed_an_event(history: History) -> None:
    del history.diaries[0].notes[2]


@wrong("(a second time) instead of c3-1")
def _event_twice(history: History) -> None:
    notes = history.diaries[0].notes
    notes.insert(4, notes[2])


@wrong("instead of c1-1")
def _events_out_of_order(history: History) -> None:
    notes = history.diaries[0].notes
    notes[1], notes[2] = notes[2], notes[1]


@wrong("at the end it lacks 1 events, beginning with c4-1")
def _last_event_missing(history: History) -> None:
    del history.diaries[0].notes[-1]


@wrong("and got what follows")
def _resumed_elsewhere(history: History) -> None:
    notes = history.diaries[0].notes
    again = notes[3]
    assert isinstance(again, Subscribed)
    notes[3] = msgspec.structs.replace(again, position=Position(EPOCH, EntryId(12, 0)))


@wrong("it asked for everything and got what follows")
def _beginning_missing(history: History) -> None:
    notes = history.diaries[0].notes
    first = notes[0]
    assert isinstance(first, Subscribed)
    notes[0] = msgspec.structs.replace(first, position=Position(EPOCH, EntryId(3, 0)))
    del notes[1]


@wrong("its first subscription was not answered first")
def _event_before_the_answer(history: History) -> None:
    del history.diaries[0].notes[0]


@wrong("where nothing is missing")
def _needless_alarm(history: History) -> None:
    notes = history.diaries[0].notes
    again = notes[3]
    assert isinstance(again, Subscribed)
    notes[3] = msgspec.structs.replace(again, recovered=False)


@wrong("its positions are of the logs ['e0']")
def _position_of_no_log(history: History) -> None:
    notes = history.diaries[0].notes
    elsewhere = Position("e0", EntryId(0, 0))
    notes[:] = [Subscribed(0.0, ALL, None, elsewhere, recovered=True)]


@wrong("serve 0 ended by itself")
def _process_died(history: History) -> None:
    history.watches[0].deaths.append("exit code 1")


@wrong("lines to its log in one second")
def _log_storm(history: History) -> None:
    history.watches[0].most_lines = 500


@wrong("while the log was away for")
def _busy_loop(history: History) -> None:
    history.watches[0].idling.append((3.0, 2.8))


@wrong("until all had come to rest")
def _never_at_rest(history: History) -> None:
    history.rest = float("inf")


def test_nothing_is_wrong_with_a_good_history() -> None:
    assert check(good()) == []


@pytest.mark.parametrize(
    ("complaint", "mutation"), [pytest.param(*each, id=each[1].__name__[1:]) for each in MUTATIONS]
)
def test_what_is_wrong_is_found(complaint: str, mutation: Mutation) -> None:
    history = good()
    mutation(history)
    assert any(complaint in sentence for sentence in check(history)), check(history)


def test_an_unknown_command_may_have_been_processed() -> None:
    history = good()

    def process(log: Log) -> None:
        log.tell("c6", ("accepted", 0), ("started", 1))
        log.done("c6", Task(number=6, key="a"))
        log.tell("c6", ("succeeded", 1))

    rewritten(history, process)
    history.runs.append(Run(pid=1, command="c6", attempt=1, number=6, at=6.0))
    assert check(history) == []


def test_a_gap_that_was_told_of_is_none() -> None:
    history = good()
    notes = history.diaries[0].notes
    again = notes[3]
    assert isinstance(again, Subscribed)
    notes[3] = msgspec.structs.replace(again, recovered=False)
    del notes[4]
    assert check(history) == []


def with_another_log(*, told: bool) -> History:
    """A history in which the log was replaced by another one, the one of `good`."""
    history = good()
    old = Log("e0")
    for number in (11, 12):
        task = Task(number=number, key="a")
        history.sent.append(Sent(task=task, sent=0.1, answers=[accepted(0.2, f"c{number}")]))
        old.done(f"c{number}", task)
    history.lives.insert(0, old.life)
    history.losses.append(Loss(0.0, 0.5))
    before, after = diary(old.life).notes[:3], history.diaries[0].notes
    first, last = after[0], before[-1]
    assert isinstance(first, Subscribed)
    after[0] = msgspec.structs.replace(first, asked=last.position, recovered=not told)
    history.diaries[0].notes = [*before, *after]
    return history


def test_what_a_replaced_log_held_may_be_lost() -> None:
    assert check(with_another_log(told=True)) == []


def test_that_the_log_was_replaced_must_be_told() -> None:
    complaints = check(with_another_log(told=False))
    assert any("and got what follows e1-0-0" in each for each in complaints)
    assert any("its positions are of the logs ['e0', 'e1']" in each for each in complaints)


def set_back(*, told: bool) -> History:
    """A history in which the log was set back to an older copy, which lacks tasks 3 and 4."""
    history = good()
    whole = history.lives[-1]
    older = Life(EPOCH, whole.entries[:12])
    task = Task(number=7, key="a")
    log = Log()
    log.life = older
    log.tell("c7", ("accepted", 0), ("started", 1))
    log.done("c7", task)
    log.tell("c7", ("succeeded", 1))
    older.entries[12:] = [
        msgspec.structs.replace(entry, id=EntryId(100 + entry.number, 0))
        for entry in older.entries[12:]
    ]
    history.sent.append(Sent(task=task, sent=10.0, answers=[accepted(10.5, "c7")]))
    history.runs.append(Run(pid=1, command="c7", attempt=1, number=7, at=10.2))
    history.statuses = {f"c{number}": "succeeded" for number in (1, 2, 7)}
    history.lives.append(older)
    history.losses.append(Loss(3.0, 9.0))
    seen = history.diaries[0].notes
    asked = seen[-1].position
    fresh = [note for note in diary(older).notes if isinstance(note, Delivered)]
    position = Position(EPOCH, EntryId(0, 0)) if told else asked
    seen.append(Subscribed(10.0, ALL, asked, position, recovered=not told))
    seen += fresh if told else fresh[2:]
    return history


def test_a_log_that_was_set_back_is_another_one() -> None:
    assert check(set_back(told=True)) == []


def test_that_the_log_was_set_back_must_be_told() -> None:
    assert check(set_back(told=False)) == [
        "somebody on 'work': after c2-1 it got c3-1 at 15-0 instead of c7-1"
    ]
