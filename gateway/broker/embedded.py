"""The embedded log server: a real Valkey as a child process, on a private Unix socket.

All processes that are given the same data directory share one server. The first starts it and owns
it; it dies with its owner. When it is gone, the others notice, and one of them starts the next on
the same data: that is so after a crash of the owner, after `kill -9`, and just the same when the
owner stops in good order, where all is flushed first. So the last process to leave ends the last
server, and nobody needs to know who else is there.

What makes that safe is one lock file, held by the *server's* process: it inherits the descriptor.
The kernel lets go of the lock exactly when the server is gone, so that two servers can never write
the same append-only file.
"""

import asyncio
import fcntl
import hashlib
import logging
import os
import stat
import sys
import tempfile
from contextlib import suppress
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Literal, Self
from urllib.parse import quote

from gateway.broker.process import ServerProcess, find_binary
from gateway.errors import StartError

MAX_SOCKET_PATH = 107 if sys.platform == "linux" else 103
"""Bytes that the kernel takes as the path of a Unix socket, without the closing zero."""

SHORT_ROOT = Path("/tmp")
"""Where the socket goes if the data directory's path is too long. Not $TMPDIR: every process must
come to the same path, whatever its environment."""

SILENCE = 15.0
"""Seconds that a server may neither answer nor say that it is loading before a start fails."""

CHECK = 1.0
"""Seconds between two looks at whether the socket is still where it was."""

MIN_BACKOFF, MAX_BACKOFF = 0.02, 5.0
"""Seconds between two attempts to bring the server back: ever longer, within these bounds."""

PROBE = 64 << 10
"""Bytes that must fit on the disk before a server is started on it."""

_log = logging.getLogger(__name__)


class _State(Enum):
    ABSENT = "nobody listens"
    SILENT = "nobody answers"
    LOADING = "it loads its data"
    READY = "it answers"


class EmbeddedServer:
    """The server of one data directory, started or adopted, and brought back when it is gone.

    Use it as an async context manager, or call `start` and `stop`. One task keeps the server; it
    runs from `start` to `stop`. Call `start` in the thread that lives as long as the process: on
    Linux the server is tied to it.
    """

    def __init__(
        self, data_dir: Path, *, fsync: Literal["everysec", "always", "no"] = "everysec"
    ) -> None:
        """Prepare; nothing is started. `fsync` counts for a server that this object starts."""
        self.directory = data_dir.resolve()
        self.socket_path = _socket_path(self.directory)
        self.url = f"unix://{quote(os.fspath(self.socket_path))}"
        self._fsync = fsync
        self._process: ServerProcess | None = None
        self._place: tuple[int, int] | None = None
        self._keeper: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The server's process, if it is this object's child; None if another process owns it."""
        return None if self._process is None else self._process.pid

    async def start(self) -> None:
        """Start or adopt the server, return when it answers, and keep it from then on.

        Raises:
            StartError: one sentence about what is in the way.
        """
        await self._ensure()
        self._keeper = asyncio.create_task(self._keep(), name="embedded-server")

    async def stop(self) -> None:
        """Let go of the server. If it is this object's own, it flushes its file and ends.

        Cancelled while the server is about to end, it kills it, by which nothing is lost that was
        acknowledged.
        """
        keeper, self._keeper = self._keeper, None
        try:
            if keeper is not None:
                keeper.cancel()
                await asyncio.wait([keeper])
        finally:
            await self._let_go()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    async def _ensure(self) -> None:
        """Return when a server answers: one that is there, or one that this starts."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + SILENCE
        while True:
            lock = _try_lock(self.directory)
            if lock is not None:
                try:
                    if self._process is not None:
                        self._process.kill()  # it has let go of the lock, so this only reaps it
                    await self._launch(lock)
                finally:
                    os.close(lock)
                return
            state = await self._ask()
            if state is _State.READY:
                return
            if state is _State.LOADING:
                deadline = clock() + SILENCE
            elif clock() > deadline:
                raise StartError(
                    f"expected to share the server that runs in {self.directory} "
                    f"but at {self.socket_path} {state.value}"
                )
            await asyncio.sleep(0.01)

    async def _launch(self, lock: int) -> None:
        """Start a server, which takes over `lock`, and wait until it has loaded its data."""
        binary = await asyncio.to_thread(find_binary)
        await asyncio.to_thread(_check_disk, self.directory)
        _make_socket_directory(self.socket_path.parent, self.directory)
        try:
            process = ServerProcess(
                binary,
                server_arguments(self.directory, self.socket_path, fsync=self._fsync),
                log=self.directory / "server.log",
                keep_open=[lock],
            )
        except OSError as error:
            raise StartError(f"expected to start {binary} but: {error.strerror}") from error
        try:
            await self._until_ready(process)
            self._place = _identity(self.socket_path)
        except OSError as error:
            process.kill()
            raise _unusable(self.directory, error) from error
        except BaseException:
            process.kill()
            raise
        self._process = process

    async def _until_ready(self, process: ServerProcess) -> None:
        clock = asyncio.get_running_loop().time
        deadline = clock() + SILENCE
        while (state := await self._ask()) is not _State.READY:
            if process.ended():
                raise StartError(
                    f"the embedded server cannot start in {self.directory}: {process.last_words()}"
                )
            if state is _State.LOADING:
                deadline = clock() + SILENCE
            elif clock() > deadline:
                raise StartError(
                    f"the embedded server in {self.directory} gave no answer for {SILENCE:g} s: "
                    f"{process.last_words()}"
                )
            await asyncio.sleep(0.005)

    async def _ask(self) -> _State:
        try:
            async with asyncio.timeout(CHECK):
                reader, writer = await asyncio.open_unix_connection(self.socket_path)
        except (OSError, TimeoutError):
            return _State.ABSENT
        try:
            async with asyncio.timeout(CHECK):
                writer.write(b"PING\r\n")
                answer = await reader.readline()
        except TimeoutError:
            return _State.SILENT
        except OSError:
            return _State.ABSENT
        finally:
            writer.close()
        if not answer:
            return _State.ABSENT
        # A server whose disk is full answers PING with -MISCONF: it is there, and says so.
        return _State.LOADING if answer.startswith(b"-LOADING") else _State.READY

    async def _keep(self) -> None:
        """Bring the server back whenever it is gone, for ever."""
        while True:
            try:
                await self._until_gone()
                await self._bring_back()
            except Exception:  # noqa: BLE001
                _log.exception("the embedded server's keeper failed and goes on")
                await asyncio.sleep(MAX_BACKOFF)

    async def _until_gone(self) -> None:
        """Hold a connection until the server ends it, or the socket is not the same any more."""
        try:
            identity = _identity(self.socket_path)
            reader, writer = await asyncio.open_unix_connection(self.socket_path)
        except OSError:
            return
        try:
            while identity == _identity(self.socket_path):
                with suppress(TimeoutError):
                    async with asyncio.timeout(CHECK):
                        await reader.read(1)
                        return
        except OSError:
            return
        finally:
            writer.close()

    async def _bring_back(self) -> None:
        pause = MIN_BACKOFF  # also the time that a killed server takes to be dead
        while True:
            await asyncio.sleep(pause)
            try:
                await self._bury()
                await self._ensure()
            except StartError as error:
                pause = min(2 * pause, MAX_BACKOFF)
                _log.error("%s; trying again in %g s", error, pause)
            else:
                return

    async def _bury(self) -> None:
        """Let go of this object's own server if it has ended, or if nobody can find it any more.

        The latter happens when the data directory is removed, or replaced by another process.
        """
        process = self._process
        if process is None:
            return
        if process.ended():
            _log.warning("the embedded server has ended: %s", process.last_words())
        elif self._in_place():
            return
        else:
            _log.warning("the embedded server is stopped: %s is not its any more", self.socket_path)
        await self._let_go()

    async def _let_go(self) -> None:
        """End this object's own server, if there is one.

        A server that stops in good order removes the socket at its path, whosesoever that is. One
        that lost its place is killed instead, by which nothing is lost that was acknowledged.
        """
        process, self._process = self._process, None
        if process is None:
            return
        if self._in_place():
            await process.stop()
        else:
            process.kill()

    def _in_place(self) -> bool:
        """Whether the socket is still the one of this object's own server."""
        try:
            return self._place == _identity(self.socket_path)
        except OSError:
            return False


def server_arguments(directory: Path, socket: Path, *, fsync: str = "everysec") -> list[str]:
    """Return how a server is told to keep a log in `directory` and to listen on `socket` only."""
    options = {
        "port": "0",
        "unixsocket": os.fspath(socket),
        "unixsocketperm": "700",
        "dir": os.fspath(directory),
        "pidfile": os.fspath(directory / "server.pid"),
        "daemonize": "no",
        "appendonly": "yes",
        "appendfsync": fsync,
        "aof-load-truncated": "yes",  # a tail that was torn by a crash is cut off, not a failure
        "save": "",
        "maxmemory-policy": "noeviction",
    }
    return [part for name, value in options.items() for part in (f"--{name}", value)]


def _socket_path(directory: Path) -> Path:
    """In the data directory; if that makes it too long, in a directory that is named for it."""
    path = directory / "server.sock"
    if len(os.fsencode(path)) <= MAX_SOCKET_PATH:
        return path
    name = hashlib.sha256(os.fsencode(directory)).hexdigest()[:16]
    return SHORT_ROOT / f"gateway-{os.getuid()}-{name}" / "server.sock"


def _make_socket_directory(path: Path, data_dir: Path) -> None:
    """Make sure that nobody else can reach, or has prepared, the place of the socket."""
    if path == data_dir:
        return
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
    except OSError as error:
        raise StartError(f"expected to put a socket into {path} but: {error.strerror}") from error
    private = stat.S_ISDIR(found.st_mode) and not stat.S_IMODE(found.st_mode) & 0o077
    if not private or found.st_uid != os.getuid():
        raise StartError(
            f"expected {path} to be a directory of this user alone but it is not; "
            "remove it, or choose a data directory with a shorter path"
        )


def _try_lock(directory: Path) -> int | None:
    """Return a descriptor that holds the lock of `directory`, or None if a server holds it.

    Makes the directory, for this user alone, if it is not there. Raises `StartError`.
    """
    try:
        _make_private(directory)
        path = directory / "server.lock"
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _identity(path) == _identity(lock):  # not removed meanwhile, by who cleared up
                return lock
        except BlockingIOError:
            pass
        os.close(lock)
    except OSError as error:
        raise _unusable(directory, error) from error
    return None


def _make_private(directory: Path) -> None:
    """Make `directory` with mode 0700, or give it that mode if it is empty or was made here.

    A directory with other things in it is not ours to close: it may be somebody's home.
    """
    with suppress(FileExistsError):
        directory.mkdir(mode=0o700, parents=True)
        (directory / ".gitignore").write_text("*\n")
    shared = directory.stat().st_mode & 0o077
    if shared and ((directory / "server.lock").exists() or not any(directory.iterdir())):
        with suppress(PermissionError):  # it belongs to somebody else, who lets us write
            directory.chmod(0o700)


def _check_disk(directory: Path) -> None:
    """Write, sync and remove a small file. The server would say far less clearly what is wrong."""
    try:
        with tempfile.TemporaryFile(dir=directory) as probe:
            probe.write(bytes(PROBE))
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        raise _unusable(directory, error) from error


def _unusable(directory: Path, error: OSError) -> StartError:
    return StartError(f"expected to keep the log in {directory} but: {error.strerror}")


def _identity(file: Path | int) -> tuple[int, int]:
    found = os.stat(file)
    return found.st_dev, found.st_ino
