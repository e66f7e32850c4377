"""A connection that is kept: the short way to the log, for what every event waits for."""

import asyncio
from collections.abc import Sequence
from typing import Any

from hiredis import pack_command
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as SilentServer

Command = tuple[str | bytes | int, ...]


class Line:
    """Sends commands over one connection of a client, for one caller at a time.

    Redis-py's own way, through pool, retries, packing and observing, takes up to 0.6 ms for one
    command where the processor's caches are cold: after a thousand sockets were written to, or on a
    machine that was idle. This way it is half of that.
    """

    def __init__(self, redis: Redis) -> None:
        """Take a connection out of the pool of `redis` when it is needed; that also closes it."""
        self._pool = redis.connection_pool
        self._connection: AbstractConnection | None = None
        self._patience = 0.0

    async def call(self, *command: str | bytes | int) -> Any:
        """Send a command and return its answer in RESP 3, as bytes. Raises what redis-py raises."""
        (answer,) = await self.ask([command])
        if isinstance(answer, ResponseError):
            raise answer
        return answer

    async def ask(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands in one piece and return their answers; a refusal is the error itself.

        Each may take as long as the client's timeout after the one before. Cancelling closes the
        connection; the next call opens it again.

        Raises what redis-py raises for a server that is away or silent. It is then unknown which of
        the commands were carried out.
        """
        # The stub of hiredis allows one argument only.
        packed = b"".join([pack_command(each) for each in commands])  # type: ignore[arg-type]
        connection = await self._ready()
        clock = asyncio.get_running_loop().time
        answers = []
        try:
            async with asyncio.timeout(self._patience) as timer:
                await connection.send_packed_command(packed, check_health=False)
                for number in range(len(commands)):
                    if number:
                        timer.reschedule(clock() + self._patience)
                    answers.append(await _answer(connection))
        except TimeoutError as error:
            raise SilentServer("the server gave no answer") from error
        return answers

    async def _ready(self) -> AbstractConnection:
        """Return the connection. Where the server closed it meanwhile, it opens at the next use."""
        connection = self._connection
        if connection is None:
            connection = await self._pool.get_connection()  # type: ignore[no-untyped-call]
            assert connection.socket_timeout is not None
            self._connection, self._patience = connection, connection.socket_timeout
            connection.socket_timeout = None  # one timer instead of one for each step
        elif connection.is_connected and await connection.can_read():
            await connection.disconnect(nowait=True)
        return connection


async def _answer(connection: AbstractConnection) -> Any:
    try:
        return await connection.read_response(disable_decoding=True)
    except ResponseError as refusal:
        return refusal
