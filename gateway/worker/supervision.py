"""Supervised tasks, and what is known of the broker's being there."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

logger = logging.getLogger(__name__)


class Tasks:
    """A set of tasks of which none fails unnoticed and none is left behind.

    Not an `asyncio.TaskGroup`, which would wait for ever for a handler that resists cancellation.
    Must be made on the event loop.
    """

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def start(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a coroutine as one of the tasks."""
        task = asyncio.create_task(coroutine)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    async def watch(
        self, awaited: Coroutine[Any, Any, Any], *, longest: float | None = None
    ) -> None:
        """Wait for something, for `longest` seconds at most, and raise what a task raises.

        Cancelling is safe.
        """
        waiting = asyncio.create_task(awaited)
        try:
            await asyncio.wait(
                [waiting, self._failure], timeout=longest, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            waiting.cancel()
        for ended in (self._failure, waiting):
            if ended.done():
                ended.result()

    async def cancel(self, patience: float) -> int:
        """Cancel all that still run, and return how many had not ended after `patience` seconds."""
        if not self._failure.cancel() and not self._failure.cancelled():
            self._failure.exception()  # marks it as seen
        for task in self._running:
            task.cancel()
        if not self._running:
            return 0
        _, resisting = await asyncio.wait(self._running, timeout=patience)
        return len(resisting)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is None:
            return
        if self._failure.done():
            logger.error("a task failed after another one", exc_info=error)
        else:
            self._failure.set_exception(error)


class Link:
    """Whether the broker is there. Each change is told once, however many notice it."""

    def __init__(self) -> None:
        self._up = True

    def up(self) -> None:
        """The broker answered."""
        if not self._up:
            self._up = True
            logger.warning("the broker is back")

    def down(self, error: BaseException) -> None:
        """The broker did not answer."""
        if self._up:
            self._up = False
            logger.warning("waiting for the broker: %s", str(error) or "it did not answer in time")
