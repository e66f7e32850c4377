"""WebSocket: subscriptions and commands in JSON text frames, RFC 6455."""

import asyncio
from collections.abc import Mapping
from typing import Protocol

from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN, SERVER
from websockets.protocol import Protocol as WebSocketProtocol
from websockets.streams import StreamReader

from gateway.errors import BadFrame, CloseCode, GatewayError, TooManySubscriptions
from gateway.hub.hub import Hub
from gateway.hub.subscription import Connection, Encoding, Request
from gateway.transports import frames
from gateway.transports.connection import HIGH_WATER, SILENT_BEATS, Buffered, Detached, watch_peer
from gateway.transports.door import Door, PaceWish, parse_after, parse_pace

MAX_CHANNELS_IN_URL = 50
NO_STATUS_RECEIVED = 1005
"""RFC 6455 section 7.4.1: a close frame without a code."""
SLICE = 16 << 10
"""Bytes of one connection that are worked on before others have their turn: a read can bring
thousands of frames, and the event loop reads up to 32 times in a row from one socket."""
MAX_COMMANDS = 64
"""Commands of one connection that may be on their way at a time; reading stops beyond."""


class Talker(Connection, Protocol):
    """A connection that can be answered with JSON texts of its own."""

    def wrap(self, payload: bytes) -> bytes:
        """Return the bytes of one text frame, for `write`."""


# What the frames mean, on either kind of connection


def receive(door: Door, connection: Talker, payload: bytes) -> asyncio.Task[None] | None:
    """Do what a client's frame asks. Returns the task of a command, which takes its time."""
    identity: int | str | None = None
    try:
        frame = frames.parse(payload)
        identity = frame.id
        if frame.subscribe is not None:
            _subscribe(door, connection, identity, frame.subscribe)
        elif frame.unsubscribe is not None:
            _unsubscribe(door, connection, identity, frame.unsubscribe.channel)
        elif frame.command is not None:
            return door.spawn(_command(door, connection, identity, frame.command))
    except GatewayError as error:
        _refuse(connection, error.extra.get("id", identity), error)
        if error.extra.get("fatal"):
            connection.goodbye(CloseCode.BAD_FRAME, 0)
    return None


def subscribe_from_url(
    door: Door, connection: Talker, channels: list[str], query: Mapping[str, str]
) -> None:
    """Subscribe as `?channel=a&channel=b&after=…` asks: all at once, from one position."""
    try:
        for name in channels:
            door.check_channel(name)
        pace = parse_pace(query)
        wanted = tuple(dict.fromkeys(channels))
        if len(wanted) > min(MAX_CHANNELS_IN_URL, door.max_subscriptions):
            raise TooManySubscriptions(f"expected at most {MAX_CHANNELS_IN_URL} channels")
        _request(door, connection, None, wanted, query.get("after") or None, pace)
    except GatewayError as error:
        _refuse(connection, None, error)


def _subscribe(
    door: Door, connection: Talker, identity: int | str | None, wish: frames.Subscribe
) -> None:
    channel = door.check_channel(wish.channel)
    if door.hub.is_subscribed(connection, channel):
        raise BadFrame(f"this connection is subscribed to {channel!r} already")
    if len(connection.audiences) >= door.max_subscriptions:
        raise TooManySubscriptions(
            f"expected at most {door.max_subscriptions} subscriptions of one connection"
        )
    pace = PaceWish(wish.max_rate, wish.conflate)
    _request(door, connection, identity, (channel,), wish.after, pace)


def _request(
    door: Door,
    connection: Talker,
    identity: int | str | None,
    channels: tuple[str, ...],
    after: str | None,
    pace: PaceWish,
) -> None:
    paces = door.paces(channels, pace)
    request = Request(
        channels,
        parse_after(after),
        acknowledge=lambda standings: b"".join(
            [connection.wrap(answer) for answer in frames.subscribed(identity, standings, paces)]
        ),
        refuse=lambda error: _refuse(connection, identity, error),
        paces=paces,
    )
    door.hub.subscribe(connection, request)


def _unsubscribe(door: Door, connection: Talker, identity: int | str | None, channel: str) -> None:
    if not door.hub.unsubscribe(connection, channel):
        raise BadFrame(f"this connection is not subscribed to {channel[:80]!r}")
    door.hub.answer(connection, connection.wrap(frames.unsubscribed(identity, channel)))


async def _command(
    door: Door, connection: Talker, identity: int | str | None, command: frames.SendCommand
) -> None:
    try:
        accepted = await door.dispatcher.send(
            command.path, bytes(command.data), idempotency_key=command.idempotency_key
        )
    except GatewayError as error:
        _refuse(connection, identity, error)
    else:
        connection.write(connection.wrap(frames.accepted(identity, accepted.status.id)))


def _refuse(connection: Talker, identity: object, error: GatewayError) -> None:
    known = identity if isinstance(identity, int | str) else None
    connection.write(connection.wrap(frames.refused(known, error)))


# Detached from the ASGI server


class DetachedSocket(Detached):
    """RFC 6455 on a detached connection.

    The state machine is `websockets`' own, and exists only while it is needed: from the first byte
    of a frame to the last one of a message. An idle connection costs nothing for it.
    """

    __slots__ = ("_machine", "_max_size", "_message", "_rest")

    @property
    def encoding(self) -> Encoding:
        return frames.WEBSOCKET_FRAMES

    def __init__(
        self, transport: asyncio.Transport, hub: Hub, *, max_size: int, heartbeat: float
    ) -> None:
        """`max_size` is of a message, in bytes; `heartbeat` in seconds."""
        super().__init__(transport, hub)
        self._max_size = max_size
        self._machine: WebSocketProtocol | None = None
        self._message: list[bytes] = []
        self._rest: bytes | None = None
        """What was read and waits for its turn; None if nothing does."""
        watch_peer(transport, SILENT_BEATS * heartbeat)

    def wrap(self, payload: bytes) -> bytes:
        return frames.text(payload)

    def adopt(self, machine: WebSocketProtocol, early: list[tuple[Opcode, bytes]]) -> None:
        """Go on where the ASGI server stopped: with frames it read already, and part of one."""
        self._machine = None if _at_rest(machine) else machine
        for opcode, data in early:
            self._deliver(opcode, data)

    def data_received(self, data: bytes) -> None:
        self.silence = 0
        if self._rest is not None:
            self._rest += data
        elif len(data) <= SLICE:
            self._take(data)
        else:
            self._transport.pause_reading()
            self._rest = data
            self._take_slice()

    def _take_slice(self) -> None:
        assert self._rest is not None
        data, self._rest = self._rest[:SLICE], self._rest[SLICE:]
        self._take(data)
        if self._rest and not self.closed:
            asyncio.get_running_loop().call_soon(self._take_slice)
        else:
            self._rest = None
            self.read_on()

    def read_on(self) -> None:
        if self._rest is None:
            super().read_on()

    def _take(self, data: bytes) -> None:
        if self.closed:
            return
        machine = self._machine
        if machine is None:
            machine = WebSocketProtocol(SERVER, state=OPEN, max_size=self._max_size)
        machine.receive_data(data)
        if machine.close_sent is None and (pongs := b"".join(machine.data_to_send())):
            self.write(pongs)  # before the answer to a message that a ping came in the middle of
        for event in machine.events_received():
            assert isinstance(event, Frame)
            self._on_frame(machine, event)
        if machine.close_sent is not None:
            self.end(_last_frame(machine))
        self._machine = None if _at_rest(machine) else machine

    def _on_frame(self, machine: WebSocketProtocol, frame: Frame) -> None:
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY):
            self._message = [bytes((frame.opcode,)), bytes(frame.data)]
        elif frame.opcode is Opcode.CONT:
            if frame.data:  # empty ones count for no limit, and could go on for ever
                self._message.append(bytes(frame.data))
        else:
            return  # the machine answers pings and closes
        if frame.fin and not self.closed:
            opcode, data = Opcode(self._message[0][0]), b"".join(self._message[1:])
            self._message = []
            try:
                if opcode is Opcode.TEXT:
                    data.decode()
            except UnicodeDecodeError:
                machine.fail(1007, "expected UTF-8 in a text message")
            else:
                self._deliver(opcode, data)

    def _deliver(self, opcode: Opcode, data: bytes) -> None:
        if opcode is Opcode.TEXT:
            self.on_text(data)
        else:
            self.on_binary(data)

    def on_text(self, data: bytes) -> None:
        """Take a whole text message. For who builds on this class."""

    def on_binary(self, data: bytes) -> None:
        """Take a whole binary message. For who builds on this class."""

    def beat(self, sign: bytes) -> None:
        if self.silence >= SILENT_BEATS:
            self.abort()
            return
        if self not in self.hub.slow:  # then it is not listened to, and TCP finds out about it
            self.silence += 1
        self.write(sign)

    def goodbye(self, code: CloseCode, retry_ms: int) -> None:
        last = frames.close(code, frames.REASONS[code])
        if code < CloseCode.BAD_FRAME:
            last = self.wrap(frames.goodbye(code, retry_ms)) + last
        self.end(last)


def _last_frame(machine: WebSocketProtocol) -> bytes:
    """Return what a state machine says at the end: its close frame.

    A peer that closes in the middle of a fragmented message does as RFC 6455, section 7.1.2, lets
    it: it gets its own code back, where the machine sees a protocol error.
    """
    output = b"".join(machine.data_to_send())
    received = machine.close_rcvd
    if received is None or machine.parser_exc is None:
        return output
    data = b"" if received.code == NO_STATUS_RECEIVED else received.serialize()
    return Frame(Opcode.CLOSE, data).serialize(mask=False)


def _at_rest(machine: WebSocketProtocol) -> bool:
    """Tell whether a state machine stands between messages, where a new one would do as well."""
    waiting: object = machine.parser
    while (inner := getattr(waiting, "gi_yieldfrom", None)) is not None:
        waiting = inner  # the machine of a handshake has its parser inside of another
    return (
        machine.current_size is None
        and not machine.reader.buffer
        and machine.state is OPEN
        and getattr(waiting, "gi_code", None) is StreamReader.at_eof.__code__
    )


class Socket(DetachedSocket):
    """What `/ws` is made of."""

    __slots__ = ("_door", "_under_way")

    def __init__(self, transport: asyncio.Transport, door: Door) -> None:
        super().__init__(transport, door.hub, max_size=door.max_frame, heartbeat=door.heartbeat)
        self._door = door
        self._under_way = 0
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

    def read_on(self) -> None:
        if self._under_way < MAX_COMMANDS:
            super().read_on()


# Plain ASGI


class PlainSocket(Buffered):
    """The same on any ASGI server, with two tasks for each connection."""

    @property
    def encoding(self) -> Encoding:
        return frames.WEBSOCKET_LINES

    def __init__(self, websocket: WebSocket, door: Door) -> None:
        super().__init__(door.hub)
        self._websocket = websocket
        self._door = door
        self._close: tuple[int, str] = (1000, "")
        self._under_way: set[asyncio.Task[None]] = set()
        door.hub.open(self)

    def wrap(self, payload: bytes) -> bytes:
        return payload + b"\n"

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
        if self.unsent() > HIGH_WATER:  # who does not read the answers is not asked for more
            await self.drained()


async def endpoint(websocket: WebSocket) -> None:
    """`GET /ws`: accept, and detach the connection where the server can."""
    door: Door = websocket.app.state.door
    query = websocket.query_params
    await websocket.accept()
    detach = websocket.scope.get("extensions", {}).get("gateway.detach")
    connection: Socket | PlainSocket
    if detach is not None:
        connection = detach(lambda transport: Socket(transport, door))
    else:
        connection = PlainSocket(websocket, door)
    if channels := query.getlist("channel"):
        subscribe_from_url(door, connection, channels, query)
    if isinstance(connection, PlainSocket):
        await connection.run()
