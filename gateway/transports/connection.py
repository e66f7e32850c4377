"""Detached connections: a socket's transport and little else.

The ASGI server did the handshake; then the connection was handed over. From here on there is no
task, no queue and no copy of its own for each connection: the hub writes to the transport.
"""

import asyncio
import fcntl
import socket
import termios
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

from gateway.errors import CloseCode
from gateway.hub.audience import Audience
from gateway.hub.hub import Hub
from gateway.hub.subscription import Encoding
from gateway.principals import ANYBODY, Caller

HIGH_WATER = 64 << 10
"""Unsent bytes from which on a connection is looked at after each batch."""
FAREWELL = 10.0
"""Seconds for which a closed connection may take to read what was written before the close."""
SILENT_BEATS = 3
"""Heartbeats that a peer may leave unanswered."""
MAX_UNHEARD = 1 << 20
"""Bytes that a peer may send to nobody, such as what was on its way when the connection was closed.
Who sends more is cut off: to read it would take time that others need."""


class Detached(asyncio.Protocol, ABC):
    """A connection that the hub writes to directly. One for each browser, so it is kept small."""

    __slots__ = (
        "__weakref__",
        "_drained",
        "_farewell",
        "_transport",
        "_unheard",
        "audiences",
        "caller",
        "closed",
        "descriptor",
        "hub",
        "number",
        "silence",
        "since",
        "write",
    )

    def __init__(self, transport: asyncio.Transport, hub: Hub, caller: Caller = ANYBODY) -> None:
        """Take the transport over, which is then to be given this protocol."""
        self._transport = transport
        self.hub = hub
        self.caller = caller
        self.write: Callable[[bytes], None] = transport.write
        self.audiences: tuple[Audience, ...] = ()
        self.number = 0
        self.since = 0.0
        self.silence = 0
        """Heartbeats since the peer was last heard."""
        self.closed = False
        self._drained: asyncio.Future[None] | None = None
        self._farewell: asyncio.TimerHandle | None = None
        self._unheard = 0
        self.descriptor = _descriptor(transport)
        # The loop shall tell of every byte that waits in the transport: nothing may overtake it.
        # Over TLS writing is paused at the mark, not beyond it: with 0 even where nothing waits.
        transport.set_write_buffer_limits(high=1 if _is_tls(transport) else 0)

    @property
    @abstractmethod
    def encoding(self) -> Encoding:
        """How events look on its wire."""

    @abstractmethod
    def beat(self, sign: bytes) -> None:
        """Send a sign of life, or give up a peer that gave none of its own."""

    @abstractmethod
    def goodbye(self, code: CloseCode, retry_ms: int) -> None:
        """Tell the peer why and when to come back, and close."""

    def precede(self, greeting: bytes) -> None:
        """Have bytes go out before all others: together with the first, if that comes soon."""
        write = self.write

        def first(data: bytes) -> None:
            self.write = write
            write(greeting + data)

        def by_itself() -> None:
            if self.write is first:
                first(b"")

        self.write = first
        asyncio.get_running_loop().call_soon(by_itself)

    def unsent(self) -> int:
        return self._transport.get_write_buffer_size()

    async def drained(self) -> None:
        if not self.closed and self.unsent() > HIGH_WATER:
            if self._drained is None:
                self._drained = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._drained)

    def end(self, last: bytes) -> None:
        """Leave the hub, write the last bytes and close. Who never reads them is cut off."""
        if self.closed:
            return
        self.closed = True
        self.hub.close(self)
        self.write(last)
        self.write = _nowhere
        self._transport.resume_reading()  # to hear of the peer's end
        # Not a full close: what the peer still sends would then be answered with a reset, which
        # can overtake the last bytes. It has a while to read them and to hang up itself.
        if self._transport.can_write_eof():
            with suppress(OSError):  # the peer had hung up: the last bytes were answered by a reset
                self._transport.write_eof()
        else:
            self._transport.close()
        loop = asyncio.get_running_loop()
        self._farewell = loop.call_later(FAREWELL, self._transport.abort)

    def abort(self) -> None:
        """Cut the connection off at once."""
        self.closed = True
        self.hub.close(self)
        self._transport.abort()

    # What the event loop calls

    def data_received(self, data: bytes) -> None:
        """Nobody listens, unless who builds on this class does."""
        self._unheard += len(data)
        if self._unheard > MAX_UNHEARD:
            self.abort()

    def pause_writing(self) -> None:
        if not self.closed:
            self.hub.slow.add(self)
            self._redirect(-1)
            # Who does not read the answers is not asked what else it wants, so that they are few.
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        self.hub.eased(self)
        if not self.closed:
            self._redirect(_descriptor(self._transport))
        self.read_on()
        self._release()

    def read_on(self) -> None:
        """Read again, unless there is a reason not to."""
        if self not in self.hub.slow:
            self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self.write = _nowhere
        self.hub.close(self)
        if self._farewell is not None:
            self._farewell.cancel()
        self._release()

    def _redirect(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.hub.redirect(self)

    def _release(self) -> None:
        if self._drained is not None:
            self._drained.set_result(None)
            self._drained = None


class Buffered(ABC):
    """A connection for which a task sends: what plain ASGI, which can only be awaited, needs."""

    def __init__(self, hub: Hub, caller: Caller = ANYBODY) -> None:
        self.hub = hub
        self.caller = caller
        self.audiences: tuple[Audience, ...] = ()
        self.number = 0
        self.since = 0.0
        self.closed = False
        self.descriptor = -1
        self._chunks: list[bytes] = []
        self._size = 0
        self._ready = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    @abstractmethod
    def encoding(self) -> Encoding:
        """How events look on its wire."""

    @abstractmethod
    def goodbye(self, code: CloseCode, retry_ms: int) -> None:
        """Tell the peer why and when to come back, and close."""

    def write(self, data: bytes) -> None:
        if self.closed or not data:
            return
        self._chunks.append(data)
        self._size += len(data)
        self._ready.set()
        self._empty.clear()
        if self._size > HIGH_WATER:
            self.hub.slow.add(self)

    def unsent(self) -> int:
        return self._size

    async def drained(self) -> None:
        await self._empty.wait()

    def beat(self, sign: bytes) -> None:
        self.write(sign)

    def end(self, last: bytes) -> None:
        """Leave the hub; what is written already and `last` are still sent."""
        self.write(last)
        self.closed = True
        self.hub.close(self)
        self._ready.set()

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield what is to be sent until the connection has ended. For the one task that sends."""
        while self._chunks or not self.closed:
            await self._ready.wait()
            data = b"".join(self._chunks)
            self._chunks.clear()
            if not self.closed:
                self._ready.clear()
            if data:
                yield data
            self._sent(len(data))

    def _sent(self, size: int) -> None:
        self._size -= size
        if not self._size:
            self._empty.set()
        if self._size <= HIGH_WATER:
            self.hub.eased(self)

    def lost(self) -> None:
        """The peer is gone."""
        self.closed = True
        self.hub.close(self)
        self._chunks.clear()
        self._ready.set()
        self._empty.set()


def _descriptor(transport: asyncio.Transport) -> int:
    """Return the socket under a transport, if what is written to the one can go to the other.

    Event loops close the socket after `connection_lost`, never before, so that its number cannot
    have become another connection's while the hub knows it.
    """
    sock = transport.get_extra_info("socket")
    if sock is None or _is_tls(transport):
        return -1
    descriptor: int = sock.fileno()
    return descriptor


def _is_tls(transport: asyncio.Transport) -> bool:
    return transport.get_extra_info("sslcontext") is not None


def has_arrived(transport: asyncio.Transport) -> bool:
    """Return whether the peer's system has all that was written, as far as this one can tell."""
    sock = transport.get_extra_info("socket")
    if transport.get_write_buffer_size() or sock is None:
        return False
    try:
        unacknowledged = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4))
    except OSError:  # not every system tells
        return False
    return not any(unacknowledged)


def _nowhere(data: bytes) -> None:
    """What a closed connection does with data."""


def watch_peer(transport: asyncio.Transport, seconds: float) -> None:
    """Have the kernel give up a peer that acknowledges nothing for so long. RFC 5482.

    Without it a browser that vanished holds its connection until TCP gives up, after many minutes.
    """
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family != socket.AF_UNIX and hasattr(socket, "TCP_USER_TIMEOUT"):
        with suppress(OSError):  # it went away during the handshake
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(seconds * 1000))
