"""Peers that send on where nobody listens: they do not get far."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from websockets.frames import Opcode

from gateway.errors import CloseCode
from gateway.transports.connection import MAX_UNHEARD
from gateway.transports.websocket import Socket
from tests.contract.serving import Serving
from tests.contract.talking import REQUEST, frame
from tests.servers import eventually

FLOOD = b"x" * (256 << 20)
"""So much goes through loopback in a moment, if it is read."""
STREAM = b"GET /sse?channel=orders HTTP/1.1\r\nHost: test\r\n\r\n"
UNANSWERED = b"POST /nowhere HTTP/1.1\r\nHost: test\r\nContent-Length: 999999999999\r\n\r\n"


@asynccontextmanager
async def peer(gateway: Serving, request: bytes) -> AsyncIterator[socket.socket]:
    """A bare connection, by which a request was sent, and the head of its answer was read."""
    loop = asyncio.get_running_loop()
    with socket.socket() as sock:
        sock.setblocking(False)
        await loop.sock_connect(sock, ("127.0.0.1", gateway.port))
        await loop.sock_sendall(sock, request)
        assert (await loop.sock_recv(sock, 65536)).startswith(b"HTTP/1.1 ")
        yield sock


async def is_held_back(sock: socket.socket) -> bool:
    """Send a flood. Return whether it is not taken, or not as fast as it comes."""
    try:
        async with asyncio.timeout(1):
            await asyncio.get_running_loop().sock_sendall(sock, FLOOD)
    except (TimeoutError, ConnectionError):
        return True
    return False


async def only_socket(gateway: Serving) -> Socket:
    """The gateway's side of the one WebSocket that there is."""
    hub = gateway.gateway.hub
    await eventually(
        lambda: any(isinstance(each, Socket) for each in hub.connections()), reason="it is open"
    )
    (found,) = (each for each in hub.connections() if isinstance(each, Socket))
    return found


async def test_who_sends_into_an_event_stream_is_cut_off(gateway: Serving) -> None:
    async with peer(gateway, STREAM) as sock:
        assert await is_held_back(sock)


async def test_who_sends_on_after_the_close_is_cut_off(gateway: Serving) -> None:
    async with peer(gateway, REQUEST) as sock:
        (await only_socket(gateway)).goodbye(CloseCode.FORBIDDEN, 0)
        assert await is_held_back(sock)


async def test_what_comes_after_the_close_is_not_kept_behind_what_waited(gateway: Serving) -> None:
    async with peer(gateway, REQUEST) as sock:
        connection = await only_socket(gateway)
        connection._quiet = True  # as if one of the frames that come now came too often
        waiting = frame(Opcode.TEXT, b'{"unsubscribe":{"channel":"orders"}}') * 2000
        await asyncio.get_running_loop().sock_sendall(sock, waiting)
        await eventually(lambda: connection._stopped, reason="frames wait for their turn")
        connection.goodbye(CloseCode.TOKEN_EXPIRED, 0)
        assert await is_held_back(sock)
        assert len(connection._rest or b"") < MAX_UNHEARD


async def test_a_body_that_nobody_wants_is_read_at_leisure(gateway: Serving) -> None:
    async with peer(gateway, UNANSWERED) as sock:
        assert await is_held_back(sock)


async def test_a_body_that_nobody_wants_is_read_to_its_end(gateway: Serving) -> None:
    """Its sender may look for the answer when it has sent all, and then ask for something else."""
    size = 2 << 20
    head = b"POST /nowhere HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n" % size
    async with peer(gateway, head) as sock, asyncio.timeout(30):
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(sock, b"x" * size + b"GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n")
        answer = b""
        while b'{"status":"ok"}' not in answer:
            piece = await loop.sock_recv(sock, 65536)
            assert piece, answer
            answer += piece
