"""RFC 6455 on a connection that was detached from the ASGI server."""

import asyncio

from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN, SERVER
from websockets.protocol import Protocol as WebSocketProtocol
from websockets.streams import StreamReader

from gateway.errors import CloseCode
from gateway.hub.hub import Hub
from gateway.hub.subscription import Encoding
from gateway.principals import ANYBODY, Caller
from gateway.transports import frames
from gateway.transports.connection import SILENT_BEATS, Detached, watch_peer

NO_STATUS_RECEIVED = 1005
"""RFC 6455 section 7.4.1: a close frame without a code."""
SLICE = 16 << 10
"""Bytes of one connection that are worked on before others have their turn: a read can bring
thousands of frames, and the event loop reads up to 32 times in a row from one socket."""


class DetachedSocket(Detached):
    """RFC 6455 on a detached connection.

    The state machine is `websockets`' own, and exists only while it is needed: from the first byte
    of a frame to the last one of a message. An idle connection costs nothing for it.
    """

    __slots__ = ("_machine", "_max_size", "_message", "_rest", "_stopped")

    @property
    def encoding(self) -> Encoding:
        return frames.WEBSOCKET_FRAMES

    def __init__(
        self,
        transport: asyncio.Transport,
        hub: Hub,
        caller: Caller = ANYBODY,
        *,
        max_size: int,
        heartbeat: float,
    ) -> None:
        """`max_size` is of a message, in bytes; `heartbeat` in seconds."""
        super().__init__(transport, hub, caller)
        self._max_size = max_size
        self._machine: WebSocketProtocol | None = None
        self._message: list[bytes] = []
        self._rest: bytes | None = None
        """What was read and waits for its turn; None if nothing does."""
        self._stopped = False
        """Its turn comes when there is no more reason not to listen."""
        watch_peer(transport, SILENT_BEATS * heartbeat)

    def wrap(self, payload: bytes) -> bytes:
        return frames.text(payload)

    def data_received(self, data: bytes) -> None:
        self.silence = 0
        if self.closed:  # the peer may send on for a while, but nothing of it is kept
            super().data_received(data)
            return
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
        if self.closed or not self._rest:
            self._rest = None
            self.read_on()
        elif self.listens:
            asyncio.get_running_loop().call_soon(self._take_slice)
        else:
            self._stopped = True

    @property
    def listens(self) -> bool:
        """Whether it is willing to hear more at present. For who builds on this class."""
        return True

    def read_on(self) -> None:
        if not self.listens:
            return
        if self._rest is None:
            super().read_on()
        elif self._stopped:
            self._stopped = False
            asyncio.get_running_loop().call_soon(self._take_slice)

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
        if self.listens and self not in self.hub.slow:  # else TCP finds out about it
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
