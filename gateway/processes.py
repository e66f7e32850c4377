"""Several processes that do the same, on one port: started, watched, restarted, stopped."""

import asyncio
import contextlib
import logging
import os
import selectors
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType

import msgspec

from gateway.errors import ConfigError, GatewayError, Problem, StartError

logger = logging.getLogger(__name__)

CANNOT_START = 3
"""Exit code of a process that could not start; another try would end the same way."""
FORCED = 130
"""Exit code after a second signal: what shells use for SIGINT."""
PATIENCE = 1.0
"""Seconds between restarts of a process that dies."""
ORPHANED = 1.0
"""Seconds between looks whether the parent is still there."""

_READY = b"ready\n"
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def supervise(
    work: Callable[[Callable[[], None]], None],
    count: int,
    *,
    on_ready: Callable[[], None],
    on_stop: Callable[[], None],
) -> None:
    """Run `work` in `count` child processes until SIGTERM or SIGINT; restart those that die.

    `work` is given what to call when it is ready; it must end on SIGTERM, and at once on a second
    one. `on_ready` is called when the first child is ready, `on_stop` once, before the children
    are told to stop. Must be called before this process has threads or an event loop, because the
    children are forks of it.

    Raises:
        StartError, ConfigError: a child could not start, and all the others were stopped.
        SystemExit: with `FORCED`, after a second signal.
    """
    _Supervisor(work, count, on_ready, on_stop).run()


@dataclass
class _Child:
    """A process that was started."""

    started: float
    """On the monotonic clock."""
    news: int
    """The end of a pipe on which it says that it is ready, or why it cannot start."""
    said: bytes = b""


class _Supervisor:
    def __init__(
        self,
        work: Callable[[Callable[[], None]], None],
        count: int,
        on_ready: Callable[[], None],
        on_stop: Callable[[], None],
    ) -> None:
        self._work = work
        self._count = count
        self._on_ready = on_ready
        self._on_stop = on_stop
        self._children: dict[int, _Child] = {}
        self._replacements: list[float] = []
        """When processes are to be started in the place of those that died."""
        self._failure: GatewayError | None = None
        self._ready = self._stopping = self._forced = False
        self._selector = selectors.DefaultSelector()

    def run(self) -> None:
        self._listen_to_signals()
        for _ in range(self._count):
            self._start()
        while self._children or (self._replacements and not self._stopping):
            for key, _ in self._selector.select(PATIENCE):
                if key.data is None:
                    os.read(key.fd, 512)  # a signal came, no more
                else:
                    self._hear(self._children[key.data])
            self._bury()
            self._replace()
        if self._failure:
            raise self._failure
        if self._forced:
            raise SystemExit(FORCED)

    def _listen_to_signals(self) -> None:
        for number in _SIGNALS:
            signal.signal(number, self._on_signal)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)  # only to wake `select`
        wake_out, wake_in = os.pipe()
        os.set_blocking(wake_in, False)
        signal.set_wakeup_fd(wake_in)
        self._selector.register(wake_out, selectors.EVENT_READ)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._forced = self._stopping
        self._stop()

    def _stop(self) -> None:
        if not self._stopping:
            self._stopping = True
            self._on_stop()
        for child in self._children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGTERM)

    def _start(self) -> None:
        news_out, news_in = os.pipe()
        sys.stdout.flush()  # or both processes write what is left in it
        # A signal in the meantime must not find the handlers of this process in the child.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        pid = os.fork()
        if pid == 0:
            self._be_child(news_in)
        self._children[pid] = _Child(time.monotonic(), news_out)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        os.close(news_in)
        os.set_blocking(news_out, False)
        self._selector.register(news_out, selectors.EVENT_READ, pid)

    def _be_child(self, news: int) -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        # Ctrl-C in a terminal reaches the children too; from here they get it as SIGTERM, once.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        os._exit(_run(self._work, news))

    def _hear(self, child: _Child) -> None:
        with contextlib.suppress(BlockingIOError):
            child.said += os.read(child.news, 65536)
        if child.said == _READY and not self._ready:
            self._ready = True
            self._on_ready()

    def _bury(self) -> None:
        """Reap children that ended; have others take their place, unless they cannot start."""
        for pid, child in list(self._children.items()):
            found, status = os.waitpid(pid, os.WNOHANG)
            if not found:
                continue
            self._hear(child)
            self._selector.unregister(child.news)
            os.close(child.news)
            del self._children[pid]
            code = os.waitstatus_to_exitcode(status)
            if self._stopping:
                continue
            if code == CANNOT_START:
                self._failure = _failure(child.said)
                self._stop()
            else:
                logger.error("a process ended with %d; another one takes its place", code)
                self._replacements.append(child.started + PATIENCE)

    def _replace(self) -> None:
        due = [moment for moment in self._replacements if moment <= time.monotonic()]
        for moment in due:
            self._replacements.remove(moment)
            if not self._stopping:
                self._start()


def _run(work: Callable[[Callable[[], None]], None], news: int) -> int:
    """Run a child's work and return its exit code."""
    try:
        work(lambda: _say(news, _READY))
    except ConfigError as error:
        _say(news, msgspec.json.encode({"problems": error.problems}))
        return CANNOT_START
    except StartError as error:
        _say(news, msgspec.json.encode({"detail": error.detail}))
        return CANNOT_START
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1
    except BaseException:
        logger.exception("the process failed")
        return 1
    finally:
        sys.stdout.flush()
    return 0


def _say(news: int, what: bytes) -> None:
    with contextlib.suppress(BrokenPipeError):  # nobody listens any more
        os.write(news, what)


def _failure(said: bytes) -> GatewayError:
    """Return the error that kept a child from starting."""
    told = msgspec.json.decode(said)
    if "problems" in told:
        return ConfigError(Problem(*each) for each in told["problems"])
    return StartError(told["detail"])


async def orphaned(parent: int) -> None:
    """Wait until the parent of this process is gone: nobody would stop it any more."""
    while os.getppid() == parent:  # noqa: ASYNC110  the kernel tells no event of it
        await asyncio.sleep(ORPHANED)
