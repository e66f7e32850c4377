"""Who may ask a broker that left a call unanswered."""

import time

REST = 1.0
"""Seconds between two tries."""


class Silence:
    """Lasts while the broker leaves calls unanswered.

    A broker that refuses costs its callers nothing. One that hangs costs each of them the whole
    timeout, and those that wait behind them too; so all are refused at once, but for one now and
    then that tries. Its outcome ends the silence, unless that is silence again.
    """

    def __init__(self) -> None:
        self._try_at: float | None = None

    @property
    def lasts(self) -> bool:
        return self._try_at is not None

    @property
    def resting(self) -> bool:
        """Whether it is too early for a try."""
        return self._try_at is not None and time.monotonic() < self._try_at

    def begin(self) -> None:
        """A call was left unanswered."""
        self._try_at = time.monotonic() + REST

    def end(self) -> None:
        """A call was answered, be it by a refusal."""
        self._try_at = None
