"""Processes of the gateway, started by its command line, watched, and treated badly."""

import asyncio
import os
import re
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from tests.e2e.chaos.history import Watch

ROOT = Path(__file__).parents[3]
HERE = Path(__file__).parent

NO_BROKER = 3
"""Exit code of a process that finds no log when it starts. Who supervises it starts it again."""
RESTART = 0.3
"""Seconds until that is done."""
LAST_WORDS = 100
"""Lines of its log that are kept to be shown."""
READY = b"Ctrl-C stops it."
"""What a process says on stdout when it is ready."""
ADDRESS = re.compile(rb"http://127\.0\.0\.1:(\d+)/sse")
"""How it says where it listens."""


class Program:
    """One process of the gateway, and whoever takes its place after it was killed."""

    def __init__(
        self, name: str, arguments: list[str], *, log: Path, environment: Mapping[str, str]
    ) -> None:
        self.watch = Watch(name=name, starts=0)
        self.ready = asyncio.Event()
        self.suffering = asyncio.Lock()
        """Whoever does something to it holds this: a process may take long to stop."""
        self.port: int | None = None
        """Where it listens, if it serves and was ready at least once."""
        self._arguments = arguments
        self._environment = {**os.environ, **environment}
        self._environment |= {"PYTHONPATH": str(ROOT), "COLUMNS": "300", "NO_COLOR": "1"}
        self._log = log
        self._lines: Counter[int] = Counter()
        self._process: Process | None = None
        self._life: asyncio.Task[None] | None = None
        self._ending = asyncio.Event()

    def start(self) -> None:
        """Start it, and again until it finds a log; `ready` is set when it is at work."""
        self._ending.clear()
        self._life = asyncio.create_task(self._live())

    async def kill(self) -> None:
        """Kill it, and return when it is dead."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> None:
        """Tell it to stop, and return when it has; it must do so in good order."""
        was_ready = self.ready.is_set()
        code = await self._end(signal.SIGTERM)
        if was_ready and code:
            self.watch.deaths.append(f"exit code {code} when it was told to stop")

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def used(self) -> tuple[int, float] | None:
        """Return its process id and the seconds of processor time that it has used; None if it is
        not at work."""
        if self._process is None or not self.ready.is_set():
            return None
        with suppress(FileNotFoundError, ProcessLookupError):
            fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
            ticks = int(fields[11]) + int(fields[12])
            return self._process.pid, ticks / os.sysconf("SC_CLK_TCK")
        return None

    async def _end(self, number: signal.Signals) -> int | None:
        self._ending.set()
        self._signal(number)
        if self._life is not None:
            await self._life
            self._life = None
        return self._process.returncode if self._process else None

    def _signal(self, number: signal.Signals) -> None:
        # Not `send_signal`, which reaps a process that has just ended, before asyncio can.
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, number)

    async def _live(self) -> None:
        while not self._ending.is_set():
            self.watch.starts += 1
            self._process = process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "gateway", *self._arguments),
                stdin=DEVNULL,
                stdout=PIPE,
                stderr=PIPE,
                env=self._environment,
            )
            if self._ending.is_set():  # while it began
                process.kill()
            await asyncio.gather(self._read_stdout(process), self._read_stderr(process))
            code = await process.wait()
            was_ready = self.ready.is_set()
            self.ready.clear()
            if self._ending.is_set() or was_ready or code != NO_BROKER:
                break
            await asyncio.sleep(RESTART)
        if not self._ending.is_set():
            self.watch.deaths.append(f"exit code {code}")

    async def _read_stdout(self, process: Process) -> None:
        assert process.stdout
        async for line in process.stdout:
            if found := ADDRESS.search(line):
                self.port = int(found[1])
            if READY in line:
                self.ready.set()

    async def _read_stderr(self, process: Process) -> None:
        assert process.stderr
        with self._log.open("ab", buffering=0) as log:
            async for line in process.stderr:
                log.write(line)
                self._count(line)

    def _count(self, line: bytes) -> None:
        """Count a line, unless it goes on with the one before it, as those of a traceback do."""
        if not line[:1].isspace():
            second = int(time.monotonic())
            self._lines[second] += 1
            self.watch.most_lines = max(self.watch.most_lines, self._lines[second])
        self.watch.said = [*self.watch.said[1 - LAST_WORDS :], line.decode(errors="replace")]
