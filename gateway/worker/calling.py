"""Calls a handler: under its timeout, on the event loop or in a thread."""

import asyncio
import contextvars
import inspect
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, cast

from gateway.commands import Command
from gateway.worker.handlers import Outcome, outcome_of
from gateway.worker.loading import Handler


class HandlerTimedOut(TimeoutError):
    """A handler took longer than it may."""


class HandlerQuit(Exception):
    """A handler tried to end the process, or raised what is meant for who runs it."""


async def call(handler: Handler, command: Command[Any]) -> Outcome:
    """Run a handler on a command and return what it answered.

    Cancelling cancels the handler. One that runs in a thread is waited for all the same, so that
    nothing else is done for its key meanwhile; a second cancellation abandons it.

    Raises:
        BadAnswer: it answered what no handler may.
        HandlerTimedOut, HandlerQuit: as they say.
        Exception: whatever it raises.
    """
    clock = asyncio.timeout(handler.timeout)
    try:
        async with clock:
            if handler.is_async:
                return await asyncio.create_task(_answer(handler, command))
            return await _in_thread(lambda: outcome_of(handler.function(command)))
    except TimeoutError as error:
        if clock.expired():
            raise HandlerTimedOut(f"it took longer than {handler.timeout:g} s") from error
        raise
    except asyncio.CancelledError as error:
        if cast(asyncio.Task[Any], asyncio.current_task()).cancelling():
            raise
        raise HandlerQuit("something that it waited for was cancelled") from error


async def _answer(handler: Handler, command: Command[Any]) -> Outcome:
    """Run an async handler, in a task of its own: one that cancels its task ends only itself."""
    try:
        answer = handler.function(command)
        return outcome_of(await answer if inspect.isawaitable(answer) else answer)
    except (Exception, asyncio.CancelledError):
        raise
    except SystemExit as error:
        raise HandlerQuit("it called exit") from error
    except BaseException as error:  # it would end the loop
        raise HandlerQuit(f"it raised {type(error).__name__}") from error


async def _in_thread(function: Callable[[], Outcome]) -> Outcome:
    """Run a function in a thread of its own, which does not keep the process from ending."""
    answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    context = contextvars.copy_context()
    threading.Thread(
        target=lambda: context.run(_run, function, answer), name="handler", daemon=True
    ).start()
    try:
        return await asyncio.shield(answer)
    except asyncio.CancelledError:
        if not answer.done():
            await asyncio.wait([answer])
        if not answer.cancelled():
            answer.exception()  # marks it as seen
        raise


def _run(function: Callable[[], Outcome], answer: asyncio.Future[Outcome]) -> None:
    report: Callable[[], None]
    try:
        report = partial(_succeed, answer, function())
    except BaseException as error:  # noqa: BLE001  raised where it is awaited
        report = partial(_fail, answer, error)
    with suppress(RuntimeError):  # the loop is closed: the worker went on without it
        answer.get_loop().call_soon_threadsafe(report)


def _succeed(answer: asyncio.Future[Outcome], outcome: Outcome) -> None:
    if not answer.done():
        answer.set_result(outcome)


def _fail(answer: asyncio.Future[Outcome], error: BaseException) -> None:
    if not answer.done():
        # None but an exception may be raised where a task awaits: it would end what runs the task.
        if isinstance(error, StopIteration) or not isinstance(error, Exception):
            quitting = HandlerQuit(f"it raised {type(error).__name__}")
            quitting.__cause__ = error
            error = quitting
        answer.set_exception(error)
