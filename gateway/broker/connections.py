"""Connections as the clients of the log need them: redis-py's, with what it leaves open closed."""

import asyncio
from collections.abc import Iterable

from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.exceptions import ConnectionError


class Closable(AbstractConnection):
    """A connection that may be closed by one task while another one opens or uses it.

    redis-py looks whether it is open and writes in another turn of the event loop; where it was
    closed in between, it would raise an `AttributeError`, as if that were a mistake of ours.
    """

    async def _send_packed_command(self, command: Iterable[bytes]) -> None:
        if self._writer is None:
            raise ConnectionError("the connection was closed while it was in use")
        await super()._send_packed_command(command)

    async def send_packed_command(
        self, command: bytes | str | Iterable[bytes], check_health: bool = True
    ) -> None:
        """Send a command. Who is cancelled meanwhile stays cancelled.

        redis-py waits with `asyncio.wait_for`, which up to Python 3.11 swallows a cancellation that
        comes in the very turn in which the bytes went out (gh-86296): a task that was told to end
        would go on to wait for the answer, and then for the next one.
        """
        task = asyncio.current_task()
        before = task.cancelling() if task else 0
        await super().send_packed_command(command, check_health)
        if task and task.cancelling() > before:
            await self.disconnect(nowait=True)
            raise asyncio.CancelledError


class OverTCP(Closable, Connection):
    pass


class OverTLS(Closable, SSLConnection):
    pass


class OverUnixSocket(Closable, UnixDomainSocketConnection):
    pass
