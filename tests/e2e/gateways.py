"""Gateways as processes: started as people start them, stopped, killed, and started again."""

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

from gateway.resources import example_config
from tests.proxy import Proxy
from tests.servers import KEPT, eventually, is_alive

PATIENCE = 60.0
"""Seconds for what must happen sooner or later. On an idle machine it takes a fraction of one."""

ROOT = Path(__file__).parents[2]


class Gateway:
    """A `gateway` command that runs and is ready."""

    def __init__(self, process: Process, said: str) -> None:
        self._process = process
        self._said = said

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def port(self) -> int:
        """Where it listens, as it says itself."""
        found = re.search(r"SSE +http://127\.0\.0\.1:(\d+)/sse", self._said)
        assert found, self._said
        return int(found[1])

    def cpu(self) -> float:
        """Return the seconds of processor time that it has used."""
        stat = Path(f"/proc/{self.pid}/stat")
        if not stat.exists():
            said = subprocess.run(["ps", "-o", "time=", "-p", str(self.pid)], capture_output=True)
            minutes, _, seconds = said.stdout.decode().strip().rpartition(":")
            return int(minutes) * 60 + float(seconds)
        user, system = stat.read_text().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    async def stop(self) -> None:
        """End it as a supervisor would, and wait for the end."""
        self._process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(self._process.wait(), PATIENCE) == 0

    async def kill(self) -> None:
        """Kill this one process, which gets no chance to clear up."""
        self._process.kill()
        await self._process.wait()

    async def kill_everything(self) -> None:
        """Kill at once this process and all that it started: workers and log server."""
        family = [self.pid, *self.descendants()]
        for pid in family:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await self._process.wait()
        await eventually(
            lambda: not any(map(is_alive, family)), within=PATIENCE, reason="all were dead"
        )

    def descendants(self) -> list[int]:
        """Return the ids of the processes that it started, and of those that they started."""
        pairs = list(_children())
        found = [self.pid]
        for parent in found:  # grows while it is gone through
            found += [child for child, of in pairs if of == parent]
        return found[1:]


def _children() -> Iterator[tuple[int, int]]:
    """Give the id of each process of this machine, and that of its parent."""
    if not Path("/proc/self/stat").exists():
        listed = subprocess.run(["ps", "-axo", "pid=,ppid="], capture_output=True, text=True)
        yield from ((int(pid), int(of)) for pid, of in map(str.split, listed.stdout.splitlines()))
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has just ended
            yield int(stat.parent.name), int(stat.read_text().rpartition(")")[2].split()[1])


@asynccontextmanager
async def running(*arguments: str, cwd: Path) -> AsyncIterator[Gateway]:
    """Run `gateway` with these arguments; at the end, kill it and all that it started."""
    log = cwd / "stderr.log"
    with log.open("ab") as stderr:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gateway", *arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=PIPE,
            stderr=stderr,
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"},
        )
    assert process.stdout
    gateway = Gateway(process, "")
    try:
        said = await asyncio.wait_for(_greeting(process.stdout), PATIENCE)
        assert said, f"the gateway did not start:\n{log.read_text()}"
        gateway = Gateway(process, said)
        yield gateway
    finally:
        if process.returncode is None:
            await gateway.kill_everything()


async def _greeting(output: asyncio.StreamReader) -> str:
    """Return what is printed up to the line that says that it is ready; nothing if it never is."""
    said = ""
    while "Ctrl-C stops it." not in said:
        line = (await output.readline()).decode()
        if not line:
            return ""
        said += line
    return said


class Site:
    """A folder with a configuration, the gateways that run there, and the cable to the last one.

    Browsers go over the cable, `http` goes around it.
    """

    def __init__(self, folder: Path, processes: AsyncExitStack) -> None:
        self.folder = folder
        self.cable = Proxy(0)
        self.http = httpx.AsyncClient(timeout=PATIENCE, limits=KEPT)
        self.gateway: Gateway
        self._processes = processes

    @property
    def url(self) -> str:
        """Where the gateway is for a browser: the same after a restart."""
        return self.cable.url

    async def start(self, *arguments: str) -> Gateway:
        """Start a process; one that serves is from now on at the other end of the cable."""
        gateway = await self._processes.enter_async_context(running(*arguments, cwd=self.folder))
        if arguments[0] != "work":
            self.gateway = gateway
            self.cable.target = gateway.port
            self.http.base_url = httpx.URL(f"http://127.0.0.1:{gateway.port}")
        return gateway

    async def place(self, customer: str = "c-19", sku: str = "tea-250", qty: int = 2) -> str:
        """Place an order as `curl` would, and return its id."""
        order = {"customer": customer, "sku": sku, "qty": qty}
        answer = await self.http.post("/orders", json=order)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    async def publish(self, *events: tuple[str, object]) -> None:
        """Publish events: of each its channel and its data."""
        batch = [
            {"specversion": "1.0", "id": os.urandom(8).hex(), "source": "/tests", "type": "t"}
            | {"channel": channel, "data": data}
            for channel, data in events
        ]
        media_type = {"Content-Type": "application/cloudevents-batch+json"}
        answer = await self.http.post("/events", json=batch, headers=media_type)
        assert answer.status_code == 202, answer.text

    async def history(self, channel: str) -> list[dict[str, Any]]:
        """Return the events that the channel retains, oldest first."""
        answer = await self.http.get(f"/channels/{channel}/history", params={"limit": 1000})
        assert answer.status_code == 200, answer.text
        events: list[dict[str, Any]] = answer.json()
        return events

    async def retains(self, channel: str, count: int) -> None:
        """Wait until the channel retains so many events."""

        async def enough() -> bool:
            return len(await self.history(channel)) == count

        reason = f"{channel} retained {count} events"
        await eventually(enough, within=PATIENCE, reason=reason)

    async def status(self, command: str) -> dict[str, Any]:
        """Return what the gateway tells of a command."""
        answer = await self.http.get(f"/commands/{command}")
        assert answer.status_code == 200, answer.text
        status: dict[str, Any] = answer.json()
        return status

    async def succeeded(self, command: str) -> dict[str, Any]:
        """Wait until a command has succeeded, and return its status."""

        async def status() -> dict[str, Any] | None:
            answer = await self.http.get(f"/commands/{command}")
            if answer.status_code == 503:  # on a busy machine the broker may be late, too
                return None
            assert answer.status_code == 200, answer.text
            now: dict[str, Any] = answer.json()
            return now if now["status"] == "succeeded" else None

        found: dict[str, Any] | None
        found = await eventually(status, within=PATIENCE, reason=f"{command} succeeded")
        assert found is not None
        return found


@asynccontextmanager
async def site(folder: Path) -> AsyncIterator[Site]:
    """A site on which nothing runs yet."""
    async with AsyncExitStack() as processes:
        site = Site(folder, processes)
        await site.cable.open()
        try:
            yield site
        finally:
            site.cable.thaw()
            await site.cable.refuse()
            await site.http.aclose()


def copy_example(folder: Path, changes: dict[str, str]) -> Path:
    """Copy the example, and replace in its configuration each text by another one."""
    copy = folder / "shop"
    left_behind = shutil.ignore_patterns("__pycache__", ".gateway")
    shutil.copytree(example_config().parent, copy, ignore=left_behind)
    file = copy / "gateway.toml"
    text = file.read_text()
    for old, new in changes.items():
        assert text.count(old) == 1, f"expected {old!r} once in the example's configuration"
        text = text.replace(old, new)
    file.write_text(text)
    return file
