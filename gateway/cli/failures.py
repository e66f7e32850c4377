"""How a command says that it did not work: a clear line on stderr, and an exit code."""

from enum import IntEnum


class ExitCode(IntEnum):
    """What scripts can tell apart."""

    FINE = 0
    FAILED = 1
    USAGE = 2
    """Wrong usage, or a wrong configuration."""
    NO_BROKER = 3
    """The broker cannot be had."""
    INTERRUPTED = 130
    """Ctrl-C, where that is not the normal way to stop (128 + SIGINT)."""


class Failure(Exception):
    """Ends the command: each line goes to stderr."""

    def __init__(self, *lines: str, code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__("\n".join(lines))
        self.code = code
