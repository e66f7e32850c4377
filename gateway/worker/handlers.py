"""What users write handlers with: the `handles` mark, and what a handler may answer."""

import inspect
import math
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NamedTuple, TypeVar

import msgspec

from gateway.commands import Command
from gateway.events import Event
from gateway.worker.retries import Backoff

MARK = "__gateway_handles__"
"""The attribute by which `loading` knows a handler."""


class Outcome(msgspec.Struct, frozen=True):
    """What a handler answers if events are not all: `result` is shown in the command's status."""

    events: Iterable[Event] = ()
    result: Any = None
    """Whatever JSON can hold."""


class Rejected(Exception):
    """Raise it for a business no: the command fails, is not retried and is no dead letter.

    `reason` is shown in the command's status to whoever may see that. `events` are published
    together with the failure.
    """

    def __init__(self, reason: str, *, events: Iterable[Event] = ()) -> None:
        super().__init__(reason)
        self.reason = reason
        self.events = tuple(events)


Answer = None | Event | Iterable[Event] | Outcome
"""What a handler may return."""

Function = Callable[[Command[Any]], Awaitable[Answer]] | Callable[[Command[Any]], Answer]

Exceptions = tuple[type[Exception], ...]

F = TypeVar("F", bound=Callable[..., Any])


class Mark(NamedTuple):
    """What `handles` writes on a function."""

    type: str
    retries: int
    timeout: float | None
    backoff: Backoff
    never_retry: Exceptions
    keep_order: bool


def handles(
    type: str,
    *,
    retries: int = 5,
    timeout: float | None = 30.0,
    backoff: float = 0.5,
    max_backoff: float = 60.0,
    never_retry: Exceptions = (),
    keep_order: bool = True,
) -> Callable[[F], F]:
    """Mark a function as the handler of the commands of one type.

        @handles("order.place", retries=5, timeout=10)
        async def place_order(command: Command[PlaceOrder]) -> list[Event]: ...

    The function is given the command, its data decoded as the annotation says (`Command[T]`, with
    a `msgspec.Struct`, a dataclass, a `TypedDict` or any other type that msgspec decodes; plain
    values without one). It returns nothing, an event, several, or an `Outcome`.

    It runs at least once for each command, and what it returns becomes visible exactly once. When
    it raises, it runs again, up to `retries` more times, after a random delay of up to `backoff`
    seconds that doubles each time up to `max_backoff`; then the command becomes a dead letter.
    It becomes one at once if what it raised is one of `never_retry`. `Rejected` is a no that is
    final.

    Commands of the same key run one at a time, in their order. While one waits for its next
    attempt, those behind it wait too; without `keep_order` it steps aside, they go on, and it runs
    again between two of them when its delay is over. Commands of other keys never wait for it.

    An `async` function is cancelled only after `timeout` seconds (never, if that is None), when the
    worker loses its hold on the command's partition, or when a shutdown takes too long. A plain
    function runs in a thread of its own. A thread cannot be cancelled: past its `timeout` the
    attempt has failed, but it is over only once the function returns.

    Several marks on one function make it the handler of several types.

    Raises:
        TypeError: it marks what is no function, or a function that yields asynchronously; or
            `never_retry` holds anything but exceptions.
        ValueError: a parameter is out of its range.
    """
    backoffs = Backoff(backoff, max_backoff)
    mark = Mark(type, retries, timeout, backoffs, never_retry, keep_order)
    _check(mark)

    def write(function: F) -> F:
        _check_function(function)
        setattr(function, MARK, (*getattr(function, MARK, ()), mark))
        return function

    return write


def _check(mark: Mark) -> None:
    if not isinstance(mark.type, str) or not mark.type:
        raise ValueError(
            f'expected the type of a command, as in @handles("order.place"), but got {mark.type!r}'
        )
    for name, number in (("retries", mark.retries), ("timeout", mark.timeout)):
        if not isinstance(number, int | float | None) or isinstance(number, bool):
            raise TypeError(f"expected a number as {name}, such as 10, but got {number!r}")
    if mark.retries < 0:
        raise ValueError(f"expected retries of 0 or more but got {mark.retries!r}")
    if mark.timeout is not None and not (0 < mark.timeout < math.inf):
        raise ValueError(f"expected a timeout in seconds, or None, but got {mark.timeout!r}")
    if not isinstance(mark.never_retry, tuple) or not all(map(_is_exception, mark.never_retry)):
        raise TypeError(
            "expected a tuple of exceptions, as in never_retry=(ValueError,), "
            f"but got {mark.never_retry!r}"
        )


def _is_exception(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, Exception)


def _check_function(function: object) -> None:
    if not inspect.isfunction(function):
        raise TypeError(f"expected @handles on a function but got {function!r}")
    if inspect.isasyncgenfunction(function):
        raise TypeError(
            f"expected a handler that returns its events, but {function.__name__} yields them: "
            "gather them in a list, because they are committed all at once"
        )


def outcome_of(answer: object) -> Outcome:
    """Return what a handler answered as an `Outcome` with a list of events.

    Raises:
        BadAnswer: it is none of what a handler may return.
    """
    if answer is None:
        return Outcome()
    if isinstance(answer, Event):
        return Outcome([answer])
    if isinstance(answer, Outcome):
        return Outcome(_events(answer.events), answer.result)
    return Outcome(_events(answer))


def _events(answer: object) -> list[Event]:
    if isinstance(answer, Event):
        return [answer]
    if not isinstance(answer, Iterable) or isinstance(answer, str | bytes | dict):
        raise BadAnswer(answer)
    events = list(answer)
    for event in events:
        if not isinstance(event, Event):
            raise BadAnswer(event)
    return events


class BadAnswer(TypeError):
    """A handler returned what no handler may. Another attempt would not mend that."""

    def __init__(self, answer: object) -> None:
        super().__init__(
            "expected a handler to return None, an Event, Events or an Outcome "
            f"but got {type(answer).__name__}: {repr(answer)[:200]}"
        )
