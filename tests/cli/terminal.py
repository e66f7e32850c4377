"""The command line in processes of its own, as people and scripts run it."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

PATIENCE = 60.0
"""Seconds that a command may take in a test."""

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Result:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


class Running:
    """A command that runs."""

    def __init__(self, process: Process) -> None:
        self.process = process

    async def out(self) -> str:
        """Return the next line of stdout."""
        assert self.process.stdout
        return (await asyncio.wait_for(self.process.stdout.readline(), PATIENCE)).decode()

    async def err(self, text: str) -> str:
        """Return the next line of stderr that contains `text`."""
        assert self.process.stderr
        while line := await asyncio.wait_for(self.process.stderr.readline(), PATIENCE):
            if text in line.decode():
                return line.decode()
        raise AssertionError(f"stderr ended without {text!r}")

    async def result(self, stdin: bytes | None = None) -> Result:
        """Wait for the end."""
        out, err = await asyncio.wait_for(self.process.communicate(stdin), PATIENCE)
        assert self.process.returncode is not None
        return Result(self.process.returncode, out.decode(), err.decode())


@asynccontextmanager
async def started(
    *arguments: str, cwd: Path | None = None, env: Mapping[str, str] = MappingProxyType({})
) -> AsyncIterator[Running]:
    """Start `gateway` with these arguments; kill it at the end if it still runs."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", *arguments),
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", "NO_COLOR": "1", **env},
    )
    try:
        yield Running(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def run(
    *arguments: str,
    stdin: str = "",
    cwd: Path | None = None,
    env: Mapping[str, str] = MappingProxyType({}),
) -> Result:
    """Run `gateway` with these arguments to its end."""
    async with started(*arguments, cwd=cwd, env=env) as running:
        return await running.result(stdin.encode())
