"""A master, its replica and the Sentinels that watch both: for tests in which the master goes."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from gateway.broker.process import ServerProcess
from tests.servers import RunningServer, eventually, free_port, running, short_directory

MASTER = "mymaster"
DOWN_AFTER = 1000
"""Milliseconds without an answer after which a Sentinel counts a master as dead."""
PATIENCE = 30.0


@dataclass(frozen=True, slots=True)
class Replicated:
    """What runs, and how a gateway finds it."""

    master: RunningServer
    replica: RunningServer
    sentinels: list[Redis]
    url: str

    async def copied(self) -> None:
        """Wait until the replica has all that the master has now."""
        told = await self._offset(self.master)

        async def has_all() -> bool:
            return await self._offset(self.replica) >= told

        await eventually(has_all, within=PATIENCE, reason="the replica had everything")

    @staticmethod
    async def _offset(server: RunningServer) -> int:
        async with Redis(unix_socket_path=str(server.socket)) as redis:
            return int((await redis.info("replication"))["master_repl_offset"])

    async def detach(self) -> None:
        """Let the replica learn nothing more of what the master is told."""
        async with Redis(unix_socket_path=str(self.replica.socket)) as redis:
            await redis.replicaof("127.0.0.1", str(free_port()))


@asynccontextmanager
async def replicated(
    binary: Path, *, sentinels: int = 1, options: tuple[str, ...] = ()
) -> AsyncIterator[Replicated]:
    """Run the two servers, with further `options`, and so many Sentinels that know all about them.

    Their configuration lets the promoted replica take over within two seconds.
    """
    async with AsyncExitStack() as stack:
        port, other = free_port(), free_port()
        at_once = ("--repl-diskless-sync-delay", "0", *options)
        master = stack.enter_context(running(binary, "--port", str(port), *at_once))
        follow = ("--port", str(other), "--replicaof", f"127.0.0.1 {port}")
        replica = stack.enter_context(running(binary, *follow, *at_once))
        async with Redis(unix_socket_path=str(replica.socket)) as redis:
            await eventually(lambda: _is_linked(redis), within=PATIENCE, reason="it was linked")
        ports = [stack.enter_context(sentinel(binary, port, sentinels)) for _ in range(sentinels)]
        clients = [await stack.enter_async_context(Redis(port=each, protocol=3)) for each in ports]
        await asyncio.gather(*(_informed(each, others=sentinels - 1) for each in clients))
        hosts = ",".join(f"127.0.0.1:{each}" for each in ports)
        yield Replicated(master, replica, clients, f"redis+sentinel://{hosts}/{MASTER}")


@contextmanager
def sentinel(binary: Path, port: int, of: int = 1, *lines: str) -> Iterator[int]:
    """Run a Sentinel, one `of` so many, that watches the master at `port`; gives its own port."""
    with short_directory() as directory:
        own = free_port()
        file = directory / "sentinel.conf"
        file.write_text(
            f"port {own}\nbind 127.0.0.1\ndir {directory}\n"
            f"sentinel monitor {MASTER} 127.0.0.1 {port} {of // 2 + 1}\n"
            f"sentinel down-after-milliseconds {MASTER} {DOWN_AFTER}\n"
            f"sentinel failover-timeout {MASTER} 3000\n" + "".join(f"{line}\n" for line in lines)
        )
        process = ServerProcess(binary, [str(file), "--sentinel"], log=directory / "log")
        try:
            yield own
        finally:
            process.kill()


async def _is_linked(replica: Redis) -> bool:
    return bool((await replica.info("replication"))["master_link_status"] == "up")


async def _informed(sentinel: Redis, *, others: int) -> None:
    async def knows_all() -> bool:
        try:
            state: Any = await sentinel.sentinel_master(MASTER)
        except OSError:
            return False
        return bool(state["num-slaves"] == 1 and state["num-other-sentinels"] == others)

    await eventually(knows_all, within=PATIENCE, reason="each Sentinel knew everybody")
