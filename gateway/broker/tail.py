"""The read for which every event waits: what comes next in the event log."""

import asyncio
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import TimeoutError as SilentServer


class Tail:
    """Sends one blocking command over and over, on a connection that it keeps.

    An event that comes alone is written to thousands of sockets, and then nothing is left in the
    processor's caches. All that redis-py does for any command (pool, retry, packing, observing,
    parsing) takes 0.6 ms then, as long as a hundred writes to sockets. So the command is packed
    once, and the answer is taken as the connection gives it.
    """

    def __init__(self, redis: Redis) -> None:
        """Take one connection out of the pool of `redis`, which is the only one to close it."""
        self._pool = redis.connection_pool
        self._connection: AbstractConnection | None = None
        self._patience = 0.0
        self._arguments: tuple[str | int, ...] = ()
        self._packed = b""

    async def call(self, *arguments: str | int) -> Any:
        """Send a command and return its answer in RESP 3, as bytes. One call at a time.

        Cancelling closes the connection; the next call opens it again.

        Raises what redis-py raises.
        """
        connection = self._connection or await self._connect()
        if arguments != self._arguments:
            self._packed = b"".join(connection.pack_command(*arguments))
            self._arguments = arguments
        try:
            async with asyncio.timeout(self._patience):
                await connection.send_packed_command(self._packed, check_health=False)
                return await connection.read_response(disable_decoding=True)
        except TimeoutError as error:
            raise SilentServer("no answer to a blocking read") from error

    async def _connect(self) -> AbstractConnection:
        connection: AbstractConnection
        connection = self._connection = await self._pool.get_connection()  # type: ignore[no-untyped-call]
        assert connection.socket_timeout is not None
        self._patience = connection.socket_timeout
        connection.socket_timeout = None  # one timer instead of one each for sending and reading
        return connection
