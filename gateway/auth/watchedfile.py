"""A file that is looked at again and again: what it says now, or said when it was good last."""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from gateway.errors import StartError

T = TypeVar("T")

logger = logging.getLogger(__name__)

INTERVAL = 1.0
"""Seconds between looks, and so the longest that a change takes to count."""

_Stamp = tuple[int, int, int] | None
"""Time of the last change, inode, size; None for no file."""


class WatchedFile(Generic[T]):
    """The contents of a file, as `read` makes sense of them.

    The same object is returned for as long as the file is the same. While the file is broken or
    gone, what it held before goes on counting, and the log says so once.
    """

    def __init__(
        self,
        path: Path,
        read: Callable[[bytes], T],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`read` may raise `ValueError`. Raises `StartError` if the file is no good now."""
        self._path = path
        self._read = read
        self._clock = clock
        self._looked = clock()
        self._stamp = _stamp(path)
        try:
            self._value = read(path.read_bytes())
        except (OSError, ValueError) as error:
            raise StartError(f"{path}: {_sentence(error)}") from error

    def current(self) -> T:
        """Return what the file says."""
        now = self._clock()
        if now - self._looked >= INTERVAL:
            self._looked = now
            self._look()
        return self._value

    def _look(self) -> None:
        stamp = _stamp(self._path)
        if stamp == self._stamp:
            return
        self._stamp = stamp  # taken before reading: a change in between is seen at the next look
        try:
            self._value = self._read(self._path.read_bytes())
        except (OSError, ValueError) as error:
            logger.warning(
                "%s: %s; what it said before goes on counting", self._path, _sentence(error)
            )
        else:
            logger.info("%s has changed and was read again", self._path)


def _stamp(path: Path) -> _Stamp:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


def _sentence(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
