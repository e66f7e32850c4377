"""Gateways as jobs of a shell: processes in a group of their own, and streams from them."""

import asyncio
import os
import re
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx

from tests.servers import KEPT, Broker, eventually, is_alive

PATIENCE = 60.0
"""Seconds for what must happen sooner or later."""
ESTABLISHED = "01"
"""As the kernel lists the state of a connection."""
ROOT = Path(__file__).parents[1]

HANDLERS = """
import asyncio
from gateway import Event, handles

@handles("place")
async def place(command):
    return Event("placed", data=command.data)

@handles("sleep")
async def sleep(command):
    await asyncio.sleep(3600)
"""


def configure(folder: Path, broker: Broker, more: str = "") -> None:
    (folder / "handlers.py").write_text(HANDLERS)
    (folder / "gateway.toml").write_text(
        f"""
[broker]
url = "{broker.config.url}"
namespace = "{broker.config.namespace}"
[server]
port = 0
shutdown = "1s"
[worker]
handlers = ["handlers"]
lease = "1s"
[[commands]]
path = "/place"
type = "place"
stream = "work"
[[commands]]
path = "/sleep"
type = "sleep"
stream = "work"
[[channels]]
pattern = "log"
history = {{ size = 1000, ttl = "1h" }}
[[feeds]]
type = "placed"
channels = ["'log'"]
{more}"""
    )


class Running:
    """A gateway that runs, and leads a process group as a job of a shell does."""

    def __init__(self, process: Process, port: int) -> None:
        self.process = process
        self.port = port
        self.http = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE, limits=KEPT
        )

    async def place(self, number: int) -> None:
        answer = await self.http.post("/place", json=number, headers={"prefer": "wait=20"})
        assert (answer.status_code, answer.json()["status"]) == (200, "succeeded"), answer.text

    def children(self) -> set[int]:
        """The processes that serve, where there are several."""
        listed = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return {pid for pid in map(int, listed.split()) if is_alive(pid)}

    def connections(self) -> dict[int, int]:
        """How many connections each of those processes has that has any."""
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        ours = {
            f"socket:[{row[9]}]"
            for row in rows
            if row[1].endswith(f":{self.port:04X}") and row[3] == ESTABLISHED
        }
        held = {child: sum(link in ours for link in open_files(child)) for child in self.children()}
        return {child: count for child, count in held.items() if count}

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def ended(self) -> tuple[int, str]:
        """Wait for the end; return the exit code and what was said on stderr."""
        _, err = await asyncio.wait_for(self.process.communicate(), PATIENCE)
        assert self.process.returncode is not None
        return self.process.returncode, err.decode()


def open_files(pid: int) -> Iterator[str]:
    for file in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # it has just been closed
            yield os.readlink(file)


async def launch(folder: Path, *arguments: str) -> Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=PIPE,
        stderr=PIPE,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", "NO_COLOR": "1"},
        start_new_session=True,
    )


@asynccontextmanager
async def running(folder: Path, *arguments: str) -> AsyncIterator[Running]:
    """Start a gateway and wait until it is ready; at the end kill what is left of its group."""
    process = await launch(folder, *arguments)
    assert process.stdout
    try:
        said = ""
        while "Ctrl-C stops it." not in said:
            line = (await asyncio.wait_for(process.stdout.readline(), PATIENCE)).decode()
            assert line, (await process.communicate())[1].decode()
            said += line
        found = re.search(r"http://127\.0\.0\.1:(\d+)/sse", said)
        gateway = Running(process, int(found[1]) if found else 0)
        async with gateway.http:
            yield gateway
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        else:
            await process.communicate()


class Stream:
    """An event stream, and what has come of it."""

    def __init__(self) -> None:
        self.text = ""
        self.ended = False

    async def follow(self, gateway: Running, after: str = "") -> None:
        url = f"http://127.0.0.1:{gateway.port}/sse?channel=log&last_event_id={after}"
        with suppress(httpx.TransportError):
            async with (
                httpx.AsyncClient(timeout=PATIENCE) as http,
                http.stream("GET", url) as answer,
            ):
                async for text in answer.aiter_text():
                    self.text += text
        self.ended = True

    @property
    def numbers(self) -> list[int]:
        return [int(found) for found in re.findall(r'"type":"placed".*?"data":(\d+)', self.text)]

    @property
    def position(self) -> str:
        ids: list[str] = re.findall(r"^id: (\S+)", self.text, re.MULTILINE)
        return ids[-1]


@asynccontextmanager
async def following(gateway: Running, count: int) -> AsyncIterator[list[Stream]]:
    streams = [Stream() for _ in range(count)]
    tasks = [asyncio.create_task(stream.follow(gateway)) for stream in streams]
    await eventually(
        lambda: all("event: subscribed" in stream.text for stream in streams),
        within=PATIENCE,
        reason="all streams were subscribed",
    )
    try:
        yield streams
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
