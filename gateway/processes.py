"""Several processes that do the same, on one port: started, watched, restarted, stopped."""

import asyncio
import contextlib
import logging
import os
import selectors
import signal
import time
from collections.abc import Callable
from types import FrameType

from gateway.errors import StartError

logger = logging.getLogger(__name__)

CANNOT_START = 3
"""Exit code of a process that could not start; another try would end the same way."""
PATIENCE = 1.0
"""Seconds between restarts of a process that dies."""
ORPHANED = 1.0
"""Seconds between looks whether the parent is still there."""


def supervise(
    work: Callable[[Callable[[], None]], None], count: int, *, on_ready: Callable[[], None]
) -> None:
    """Run `work` in `count` child processes until told to stop; restart those that die.

    `work` is given what to call when it is ready. Must be called before this process has threads
    or an event loop, because the children are forks of it. Signals are passed on.

    Raises:
        StartError: a child could not start; it has said why.
    """
    _Supervisor(work, count, on_ready).run()


class _Supervisor:
    def __init__(
        self, work: Callable[[Callable[[], None]], None], count: int, on_ready: Callable[[], None]
    ) -> None:
        self._work = work
        self._count = count
        self._on_ready = on_ready
        self._children: dict[int, float] = {}
        """Process id → when it was started."""
        self._stopping = False
        self._ready_out, self._ready_in = os.pipe()

    def run(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._pass_on)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)  # only to wake `select`
        wake_out, wake_in = os.pipe()
        os.set_blocking(wake_in, False)
        signal.set_wakeup_fd(wake_in)
        for _ in range(self._count):
            self._start()
        with selectors.DefaultSelector() as selector:
            selector.register(wake_out, selectors.EVENT_READ)
            selector.register(self._ready_out, selectors.EVENT_READ)
            while self._children:
                for key, _ in selector.select(PATIENCE):
                    os.read(key.fd, 512)
                    if key.fd == self._ready_out:
                        selector.unregister(self._ready_out)
                        self._on_ready()
                self._bury()

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        self._stopping = True
        for child in self._children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, number)

    def _start(self) -> None:
        child = os.fork()
        if child:
            self._children[child] = time.monotonic()
            return
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os._exit(_run(lambda: self._work(self._child_ready)))

    def _child_ready(self) -> None:
        os.write(self._ready_in, b"\n")

    def _bury(self) -> None:
        """Reap children that ended; start others in their place, unless they cannot start."""
        for child, started in list(self._children.items()):
            found, status = os.waitpid(child, os.WNOHANG)
            if not found:
                continue
            del self._children[child]
            code = os.waitstatus_to_exitcode(status)
            if self._stopping:
                continue
            if code == CANNOT_START:
                self._pass_on(signal.SIGTERM, None)
                raise StartError("one of the processes could not start")
            logger.error("a process ended with %d; another one takes its place", code)
            time.sleep(max(0.0, PATIENCE - (time.monotonic() - started)))
            self._start()


def _run(work: Callable[[], None]) -> int:
    """Run a child's work and return its exit code. Errors are told on stderr by the logs."""
    try:
        work()
    except StartError as error:
        logger.error("%s", error)
        return CANNOT_START
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1
    except BaseException:
        logger.exception("the process failed")
        return 1
    return 0


async def orphaned(parent: int) -> None:
    """Wait until the parent of this process is gone: nobody would stop it any more."""
    while os.getppid() == parent:  # noqa: ASYNC110  the kernel tells no event of it
        await asyncio.sleep(ORPHANED)
