"""WebSocket: subscriptions and commands in JSON text frames, RFC 6455."""

import asyncio
from contextlib import suppress
from dataclasses import replace

from starlette.websockets import WebSocket, WebSocketDisconnect

from gateway.errors import CloseCode, GatewayError, Unauthorized
from gateway.hub.subscription import Encoding
from gateway.principals import UNKNOWN, Caller, Transport
from gateway.transports import frames
from gateway.transports.connection import HIGH_WATER, SILENT_BEATS, Buffered
from gateway.transports.dialogue import (
    await_introduction,
    channels_of_url,
    ending,
    receive,
    subscribe_from_url,
    tell_end,
)
from gateway.transports.door import Door
from gateway.transports.rfc6455 import DetachedSocket

MAX_COMMANDS = 64
"""Commands of one connection that may be on their way at a time; reading stops beyond."""


class Socket(DetachedSocket):
    """What `/ws` is made of."""

    __slots__ = ("_door", "_quiet", "_under_way")

    def __init__(self, transport: asyncio.Transport, door: Door, caller: Caller) -> None:
        super().__init__(
            transport, door.hub, caller, max_size=door.max_frame, heartbeat=door.heartbeat
        )
        self._door = door
        self._under_way = 0
        self._quiet = False
        """It asked too often, and is not listened to for a while."""
        door.hub.open(self)

    def on_text(self, data: bytes) -> None:
        task = receive(self._door, self, data)
        if task is not None:
            self._under_way += 1
            task.add_done_callback(self._done)
            if self._under_way >= MAX_COMMANDS:
                self._transport.pause_reading()

    def on_binary(self, data: bytes) -> None:
        self.goodbye(CloseCode.BAD_FRAME, 0)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._under_way -= 1
        if self._under_way == MAX_COMMANDS - 1 and not self.closed:
            self.read_on()

    def be_quiet(self, seconds: float) -> None:
        if not self._quiet:
            self._quiet = True
            self._transport.pause_reading()
            asyncio.get_running_loop().call_later(seconds, self._speak)

    def _speak(self) -> None:
        self._quiet = False
        if not self.closed:
            self.read_on()

    @property
    def listens(self) -> bool:
        return self._under_way < MAX_COMMANDS and not self._quiet


# Plain ASGI


class PlainSocket(Buffered):
    """The same on any ASGI server, with two tasks for each connection."""

    @property
    def encoding(self) -> Encoding:
        return frames.WEBSOCKET_LINES

    def __init__(self, websocket: WebSocket, door: Door, caller: Caller) -> None:
        super().__init__(door.hub, caller)
        self._websocket = websocket
        self._door = door
        self._close: tuple[int, str] = (1000, "")
        self._under_way: set[asyncio.Task[None]] = set()
        self._quiet = 0.0
        door.hub.open(self)

    def wrap(self, payload: bytes) -> bytes:
        return payload + b"\n"

    def be_quiet(self, seconds: float) -> None:
        self._quiet = seconds

    def goodbye(self, code: CloseCode, retry_ms: int) -> None:
        self._close = code, frames.REASONS[code]
        self.end(self.wrap(frames.goodbye(code, retry_ms)) if code < CloseCode.BAD_FRAME else b"")

    async def run(self) -> None:
        """Serve the connection until it ends, from whichever side."""
        reader = asyncio.create_task(self._read())
        try:
            async for data in self.chunks():
                async with self._patience():
                    for line in data.splitlines():
                        await self._websocket.send_text(line.decode())
            if not reader.done():
                async with self._patience():
                    await self._websocket.close(*self._close)
        except (WebSocketDisconnect, TimeoutError):
            pass
        finally:
            self.lost()
            reader.cancel()
            await asyncio.wait([reader])

    def _patience(self) -> asyncio.Timeout:
        """How long the peer may take to read what is being sent."""
        return asyncio.timeout(SILENT_BEATS * self._door.heartbeat)

    async def _read(self) -> None:
        try:
            while True:
                message = await self._websocket.receive()
                if message["type"] == "websocket.disconnect":
                    break
                if not self.closed:
                    await self._take(message.get("text"))
        finally:
            self.lost()

    async def _take(self, text: str | None) -> None:
        if text is None:
            self.goodbye(CloseCode.BAD_FRAME, 0)
        elif len(text.encode()) > self._door.max_frame:
            self._close = 1009, "message too big"
            self.end(b"")
        elif task := receive(self._door, self, text.encode()):
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
            if len(self._under_way) >= MAX_COMMANDS:
                await asyncio.wait(self._under_way, return_when=asyncio.FIRST_COMPLETED)
        if self._quiet:
            pause, self._quiet = self._quiet, 0.0
            await asyncio.sleep(pause)
        if self.unsent() > HIGH_WATER:  # who does not read the answers is not asked for more
            await self.drained()


async def endpoint(websocket: WebSocket) -> None:
    """`GET /ws`: accept, and detach the connection where the server can."""
    door: Door = websocket.app.state.door
    query = websocket.query_params
    try:
        channels = channels_of_url(door, query.getlist("channel"))
        caller = await _caller(door, websocket)
        wanted = 0
        if caller.principal is not UNKNOWN:
            await door.dispatcher.guard.check_owner(channels, caller)
            wanted = len(channels)
        holding = await door.dispatcher.guard.enter(caller, subscriptions=wanted)
    except GatewayError as error:
        await _turn_away(websocket, error)
        return
    try:
        await websocket.accept()
        connection = _connection(websocket, door, caller)
    except BaseException:
        holding.close()
        raise
    door.hold(connection, holding)
    if caller.principal is UNKNOWN:
        await_introduction(door, connection, channels, query)
    elif door.admit(connection):
        tell_end(connection)
        if channels and not subscribe_from_url(door, connection, channels, query):
            holding.unsubscribe(wanted)
    if isinstance(connection, PlainSocket):
        await connection.run()


async def _caller(door: Door, websocket: WebSocket) -> Caller:
    """Return who wants to connect: `UNKNOWN` if it shows nothing, and has to say it then."""
    try:
        return await door.identify(websocket, Transport.WEBSOCKET)
    except Unauthorized as error:
        if not error.missing:
            raise
    guard = door.dispatcher.guard
    located = guard.locate(websocket.headers, websocket.client, Transport.WEBSOCKET)
    return replace(located, principal=UNKNOWN)


def _connection(websocket: WebSocket, door: Door, caller: Caller) -> Socket | PlainSocket:
    detach = websocket.scope.get("extensions", {}).get("gateway.detach")
    if detach is None:
        return PlainSocket(websocket, door, caller)
    connection: Socket = detach(lambda transport: Socket(transport, door, caller))
    return connection


async def _turn_away(websocket: WebSocket, error: GatewayError) -> None:
    """Refuse a connection in a way that scripts in a browser can see: they see no HTTP status."""
    code, retry_ms = ending(error)
    with suppress(WebSocketDisconnect):  # it did not wait for what it would be told
        await websocket.accept()
        await websocket.send_text(frames.refused(None, error).decode())
        if error.retry_after_s is not None:
            await websocket.send_text(frames.goodbye(code, retry_ms).decode())
        await websocket.close(code, frames.REASONS[code])
