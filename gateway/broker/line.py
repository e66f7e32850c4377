"""A connection that is kept: the short way to the log, for what every event waits for."""

import asyncio
from collections.abc import Sequence
from typing import Any, cast

from hiredis import PushNotification, Reader, pack_command
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection, DefaultParser
from redis.exceptions import ConnectionError, InvalidResponse, ReadOnlyError, ResponseError
from redis.exceptions import TimeoutError as SilentServer

Command = tuple[str | bytes | int, ...]


class Line:
    """Sends commands over one connection of a client, for one caller at a time.

    Redis-py opens it, with all that belongs to that. Its own way for a command, through pool,
    retries, streams and observing, takes up to 0.6 ms where the processor's caches are cold: after
    a thousand sockets were written to, or on a machine that was idle. This way it is a fifth.
    """

    def __init__(self, redis: Redis) -> None:
        """Take a connection out of the pool of `redis` when it is needed; that also closes it."""
        self._pool = redis.connection_pool
        self._connection: AbstractConnection | None = None
        self._wire: _Wire | None = None

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
        wire = self._wire
        if wire is None or wire.ended:
            wire = self._wire = await self._open()
        return await wire.ask(packed, len(commands)) if commands else []

    async def _open(self) -> "_Wire":
        connection = self._connection
        if connection is None:
            connection = await self._pool.get_connection()  # type: ignore[no-untyped-call]
            self._connection = connection
        else:
            await connection.disconnect(nowait=True)
            await connection.connect()  # type: ignore[no-untyped-call]
        assert connection._writer is not None
        assert connection.socket_timeout is not None
        transport = cast(asyncio.Transport, connection._writer.transport)
        return _Wire(transport, connection.socket_timeout)


_NOTHING = object()
"""What the reader says when there is no whole answer."""


class _Wire(asyncio.Protocol):
    """The transport of a connection that redis-py opened, without the streams on top of it."""

    def __init__(self, transport: asyncio.Transport, patience: float) -> None:
        """`patience`: seconds for an answer."""
        self.ended = False
        self._transport = transport
        self._patience = patience
        self._loop = asyncio.get_running_loop()
        self._opener = transport.get_protocol()
        self._reader = Reader(
            protocolError=InvalidResponse,
            replyError=DefaultParser.parse_error,
            notEnoughData=_NOTHING,
        )
        self._answers: list[Any] = []
        self._missing = 0
        self._asking: asyncio.Future[list[Any]] | None = None
        self._heard = 0.0
        """When the last answer came, or the question went out."""
        transport.set_protocol(self)

    async def ask(self, packed: bytes, count: int) -> list[Any]:
        """Send commands and wait for their answers. Raises as `Line.ask` does."""
        self._answers, self._missing = [], count
        asking: asyncio.Future[list[Any]]
        asking = self._asking = self._loop.create_future()
        self._heard = self._loop.time()
        self._timer = self._loop.call_later(self._patience, self._look_at_the_clock)
        self._transport.write(packed)
        try:
            return await asking
        except BaseException:
            self._end()
            raise
        finally:
            self._timer.cancel()
            self._asking = None

    def data_received(self, data: bytes) -> None:
        """Take the answers that are whole."""
        self._reader.feed(data)
        try:
            while (answer := self._reader.gets(False)) is not _NOTHING:
                self._take(answer)
        except InvalidResponse as error:
            self._fail(error)

    def _take(self, answer: Any) -> None:
        if isinstance(answer, PushNotification):
            return
        if not self._missing:
            self._fail(ConnectionError("the server said more than it was asked"))
            return
        if isinstance(answer, ConnectionError):  # it is there, and serves nobody yet
            self._fail(answer)
            return
        if isinstance(answer, ReadOnlyError):  # a replica: the next call asks who is none
            self._end()
        self._heard = self._loop.time()
        self._answers.append(answer)
        self._missing -= 1
        if not self._missing and self._asking is not None and not self._asking.done():
            self._asking.set_result(self._answers)

    def _look_at_the_clock(self) -> None:
        due = self._heard + self._patience
        if self._loop.time() < due:
            self._timer = self._loop.call_at(due, self._look_at_the_clock)
        else:
            self._fail(SilentServer("the server gave no answer"))

    def _fail(self, error: Exception) -> None:
        if self._asking is not None and not self._asking.done():
            self._asking.set_exception(error)
        self._end()

    def _end(self) -> None:
        self.ended = True
        self._transport.abort()

    def eof_received(self) -> None:
        """The server says no more; the transport closes next."""
        self.ended = True

    def connection_lost(self, exc: Exception | None) -> None:
        """The server closed it, or somebody here did."""
        self._fail(ConnectionError("the connection was closed"))
        self._opener.connection_lost(exc)
