"""A server's process: tied to its parent by the kernel or by a watchdog, and what its log says."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.broker.process import MAX_LOG, ServerProcess, distilled
from tests.servers import eventually, is_alive

PARENT = """
import asyncio, os, sys
from pathlib import Path
from gateway.broker.process import ServerProcess

async def main():
    process = ServerProcess(
        Path("/bin/sleep"), ["1000"], log=Path(sys.argv[1]), tied_by_kernel=sys.argv[2] == "kernel"
    )
    print(process.pid, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await process.stop()
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        print("no children", flush=True)

asyncio.run(main())
"""
"""Has a child until its standard input ends."""

both_ties = pytest.mark.parametrize(
    "tie",
    [
        pytest.param(
            "kernel", marks=pytest.mark.skipif(sys.platform != "linux", reason="Linux only")
        ),
        "watchdog",
    ],
)


async def parent(log: Path, tie: str) -> tuple[asyncio.subprocess.Process, int]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-c", PARENT, log, tie),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    return process, int(await process.stdout.readline())


@both_ties
async def test_a_server_dies_with_a_parent_that_is_killed(tmp_path: Path, tie: str) -> None:
    process, pid = await parent(tmp_path / "log", tie)
    assert is_alive(pid)
    process.kill()
    await process.communicate()
    await eventually(lambda: not is_alive(pid), reason="the server died with its parent")


@both_ties
async def test_a_server_that_is_stopped_leaves_nothing_behind(tmp_path: Path, tie: str) -> None:
    process, pid = await parent(tmp_path / "log", tie)
    said, _ = await process.communicate(b"")  # which ends its input
    assert said == b"no children\n"
    assert not is_alive(pid)


async def test_a_server_that_ignores_the_request_to_stop_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = ServerProcess(
        Path("/bin/sh"), ["-c", "trap '' TERM; echo ready; while :; do sleep 1; done"], log=log
    )
    await eventually(lambda: b"ready" in log.read_bytes(), reason="the process was ready")
    await process.stop(patience=0.1)
    assert process.ended()
    assert process.last_words() == "it was ended by SIGKILL"


async def test_a_binary_that_is_gone_is_named(tmp_path: Path) -> None:
    process = ServerProcess(tmp_path / "gone", [], log=tmp_path / "log")
    await eventually(process.ended, reason="the start failed")
    assert process.last_words() == f"{tmp_path}/gone: No such file or directory"


async def test_a_long_log_is_turned_over(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    log.write_bytes(bytes(MAX_LOG + 1))
    process = ServerProcess(Path("/bin/echo"), ["something new"], log=log)
    await eventually(process.ended, reason="it ended")
    assert log.read_text() == "something new\n"
    assert (tmp_path / "server.log.1").stat().st_size == MAX_LOG + 1


@pytest.mark.parametrize(
    ("log", "line"),
    [
        ("", "it said nothing"),
        ("*** FATAL CONFIG FILE ERROR ***\nBad directive\n", "Bad directive"),
        (
            "1:M 23 Nov 2026 09:38:36.100 # WARNING Memory overcommit must be enabled!\n"
            "1:M 23 Nov 2026 09:38:36.177 # Failed opening Unix socket: bind: No such file\n"
            "1:M 23 Nov 2026 09:38:36.178 * Goodbye\n",
            "Failed opening Unix socket: bind: No such file",
        ),
        ("1:M 23 Nov 2026 09:38:36.178 * Goodbye\n", "Goodbye"),
    ],
)
def test_a_log_is_distilled_into_the_line_that_matters(log: str, line: str) -> None:
    assert distilled(log) == line
