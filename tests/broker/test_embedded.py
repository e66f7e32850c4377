"""The embedded server: one for a data directory, tied to its owner, brought back when it is gone.

Sharing and dying are tested with real processes, on both event loops that the gateway runs on.
"""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.broker.client import Clients, connect, opened, translated
from gateway.broker.embedded import EmbeddedServer
from gateway.config import BrokerConfig
from gateway.errors import BrokerUnavailable, StartError
from tests.servers import eventually, is_alive

SHARER = """
import asyncio, sys
from pathlib import Path
import uvloop
from gateway.broker.embedded import EmbeddedServer

async def main():
    async with EmbeddedServer(Path(sys.argv[1])) as server:
        print(server.pid or 0, flush=True)
        await asyncio.to_thread(sys.stdin.read)

loop = uvloop.new_event_loop if sys.argv[2] == "uvloop" else asyncio.new_event_loop
with asyncio.Runner(loop_factory=loop) as runner:
    runner.run(main())
"""
"""Holds the server of a directory until its standard input ends; prints the server's process if
that is its own, else 0."""


@dataclass(frozen=True, slots=True)
class Sharer:
    """Another process that shares the server of a directory."""

    process: asyncio.subprocess.Process
    server_pid: int

    async def leave(self) -> None:
        """Stop in good order."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert await self.process.wait() == 0

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()


@asynccontextmanager
async def sharing(directory: Path, loop: str = "asyncio") -> AsyncIterator[Sharer]:
    """Run another process that starts or adopts the server of `directory`."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-c", SHARER, directory, loop),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        yield Sharer(process, int(await process.stdout.readline()))
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


def config(directory: Path) -> BrokerConfig:
    return BrokerConfig(data_dir=directory)


async def count(clients: Clients) -> int:
    """Count one more in the log, and return how many that makes; 0 if it takes no write now."""
    with suppress(BrokerUnavailable), translated():
        return await clients.commands.incr("count")
    return 0


async def answers(server: EmbeddedServer) -> bool:
    """Whether somebody listens on the server's socket at this moment."""
    with suppress(StartError):
        await (await connect(BrokerConfig(url=server.url))).close()
        return True
    return False


both_loops = pytest.mark.parametrize("loop", ["asyncio", "uvloop"])


async def test_data_is_there_after_a_restart(tmp_path: Path) -> None:
    async with opened(config(tmp_path)) as clients:
        await clients.commands.set("key", "value")
    async with opened(config(tmp_path)) as clients:
        assert await clients.commands.get("key") == b"value"


async def test_data_is_there_after_everything_was_killed(tmp_path: Path) -> None:
    async with sharing(tmp_path) as owner, opened(config(tmp_path)) as clients:
        for number in range(1, 1001):
            await clients.commands.set("key", number)
        os.kill(owner.server_pid, signal.SIGKILL)
        await owner.kill()
    async with opened(config(tmp_path)) as clients:
        assert await clients.commands.get("key") == b"1000"


@both_loops
async def test_the_server_dies_with_its_parent_even_if_that_is_killed(
    tmp_path: Path, loop: str
) -> None:
    async with sharing(tmp_path, loop) as owner:
        assert is_alive(owner.server_pid)
        await owner.kill()
        await eventually(lambda: not is_alive(owner.server_pid), reason="the server died")


@both_loops
async def test_a_second_process_adopts_the_server_of_the_first(tmp_path: Path, loop: str) -> None:
    async with sharing(tmp_path, loop) as first, sharing(tmp_path, loop) as second:
        assert is_alive(first.server_pid)
        assert second.server_pid == 0
        await second.leave()
        assert is_alive(first.server_pid)
        await first.leave()
        assert not is_alive(first.server_pid)


async def test_processes_that_start_at_once_share_one_server(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        starts = [stack.enter_async_context(sharing(tmp_path)) for _ in range(4)]
        sharers = await asyncio.gather(*starts)
        assert sum(sharer.server_pid != 0 for sharer in sharers) == 1


async def test_a_survivor_takes_over_when_the_owner_is_killed(tmp_path: Path) -> None:
    async with sharing(tmp_path) as owner, opened(config(tmp_path)) as clients:
        await clients.commands.set("key", "value")
        await owner.kill()
        await eventually(lambda: count(clients), reason="the survivor brought a server back")
        assert await clients.commands.get("key") == b"value"


@both_loops
async def test_a_survivor_takes_over_when_the_owner_leaves(tmp_path: Path, loop: str) -> None:
    owner = EmbeddedServer(tmp_path)
    await owner.start()
    async with sharing(tmp_path, loop) as survivor:
        async with opened(config(tmp_path)) as clients:
            await clients.commands.set("key", "value")
        await owner.stop()
        await eventually(lambda: answers(owner), reason="the survivor brought a server back")
        async with EmbeddedServer(tmp_path) as newcomer:
            assert newcomer.pid is None
        await survivor.leave()
    async with opened(config(tmp_path)) as clients:
        assert await clients.commands.get("key") == b"value"


async def test_one_of_several_survivors_takes_over(tmp_path: Path) -> None:
    async with (
        sharing(tmp_path) as owner,
        EmbeddedServer(tmp_path) as one,
        EmbeddedServer(tmp_path) as other,
        opened(config(tmp_path)) as clients,
    ):
        assert (one.pid, other.pid) == (None, None)
        await owner.kill()
        await eventually(lambda: count(clients), reason="a survivor brought a server back")
        assert not (one.pid and other.pid)


async def test_a_server_that_was_killed_is_brought_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with EmbeddedServer(tmp_path) as server, opened(config(tmp_path)) as clients:
        await clients.commands.set("key", "value")
        killed = server.pid
        assert killed
        os.kill(killed, signal.SIGKILL)
        await eventually(lambda: count(clients), reason="the server was brought back")
        assert await clients.commands.get("key") == b"value"
        assert not is_alive(killed)
    assert "it was ended by SIGKILL" in caplog.text


async def test_a_data_directory_that_was_removed_begins_anew(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    async with EmbeddedServer(directory) as server:
        first = server.pid
        assert first
        shutil.rmtree(directory)
        await eventually(lambda: server.pid not in (None, first), reason="a new server started")
        assert not is_alive(first)
        assert await answers(server)


async def test_who_shares_a_removed_directory_moves_to_the_new_log(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    async with EmbeddedServer(directory), opened(config(directory)) as clients:
        await clients.commands.set("count", 1_000_000)
        assert await count(clients) == 1_000_001
        shutil.rmtree(directory)

        async def new() -> int:
            now = await count(clients)
            return now if now < 1_000_000 else 0

        first = await eventually(new, reason="the log began anew")
        assert first < await eventually(new, reason="the new log took one more")


async def test_who_lost_its_directory_does_not_take_the_next_server_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.broker.embedded.CHECK", 60)  # the owner does not notice
    directory = tmp_path / "data"
    owner = EmbeddedServer(directory)
    await owner.start()
    assert await answers(owner)
    shutil.rmtree(directory)
    async with EmbeddedServer(directory) as next_one:
        assert next_one.pid
        await owner.stop()
        assert await answers(next_one)


async def test_a_start_that_is_cancelled_leaves_no_server_behind(tmp_path: Path) -> None:
    for milliseconds in range(0, 100, 7):
        server = EmbeddedServer(tmp_path)
        with suppress(TimeoutError):
            async with asyncio.timeout(milliseconds / 1000):
                await server.start()
        await server.stop()
        assert server.pid is None
    async with EmbeddedServer(tmp_path) as server:
        assert server.pid is not None  # nobody else held the directory


async def test_stopping_leaves_no_zombie(tmp_path: Path) -> None:
    async with EmbeddedServer(tmp_path) as server:
        pid = server.pid
        assert pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_ctrl_c_in_the_terminal_does_not_reach_the_server(tmp_path: Path) -> None:
    async with EmbeddedServer(tmp_path) as server:
        assert server.pid
        assert os.getpgid(server.pid) != os.getpgid(0)


async def test_a_torn_tail_of_the_file_is_cut_off(tmp_path: Path) -> None:
    async with opened(config(tmp_path)) as clients:
        for number in range(100):
            await clients.commands.set(f"key-{number}", "value")
    written = append_only_file(tmp_path)
    os.truncate(written, written.stat().st_size - 7)
    async with opened(config(tmp_path)) as clients:
        assert await clients.commands.dbsize() == 99


async def test_a_damaged_file_is_reported_in_one_sentence(tmp_path: Path) -> None:
    async with opened(config(tmp_path)) as clients:
        for number in range(100):
            await clients.commands.set(f"key-{number}", "value")
    written = append_only_file(tmp_path)
    content = written.read_bytes()
    middle = content.index(b"*3\r\n", len(content) // 2)
    written.write_bytes(content[:middle] + b"damage\r\n" + content[middle:])
    with pytest.raises(StartError, match=r"Bad file format .* make a backup") as caught:
        await EmbeddedServer(tmp_path).start()
    assert "\n" not in str(caught.value)


def append_only_file(directory: Path) -> Path:
    (path,) = (directory / "appendonlydir").glob("*.incr.aof")
    return path
