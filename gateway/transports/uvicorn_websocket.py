"""uvicorn's WebSocket protocol, up to the handshake; then an endpoint can detach its connection."""

from asyncio import Transport
from collections.abc import Callable
from typing import Any, TypeVar, cast

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Opcode
from websockets.http11 import Request
from websockets.protocol import Protocol as StateMachine

from gateway.errors import BadRequest, ShuttingDown
from gateway.transports.refusals import Handshake, refusal
from gateway.transports.rfc6455 import DetachedSocket

S = TypeVar("S", bound=DetachedSocket)

EXTENSION = "gateway.detach"
"""In the extensions of a scope: what detaches the connection."""


class _Gone(Transport):
    """What is left with uvicorn of a transport that was handed over."""

    def close(self) -> None:
        pass

    def is_closing(self) -> bool:
        return True

    def write(self, data: Any) -> None:
        pass


GONE = _Gone()


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """WebSocket by uvicorn up to the handshake; then it can be detached."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        # What uvicorn has made differs in its refusals alone; to make another one in its place is
        # some of what a handshake costs.
        self.conn.__class__ = Handshake

    async def send(self, message: Any) -> None:
        """Send; uvicorn takes a handshake that was refused for one that nobody answered.

        The same goes for one whose peer is gone.
        """
        await super().send(message)
        last = not message.get("more_body", False)
        refused = message["type"] == "websocket.http.response.body" and last
        if refused or self.transport.is_closing():
            self.handshake_complete = True

    def shutdown(self) -> None:
        """End it, or the handshake: uvicorn would say that something went wrong."""
        if self.handshake_complete or self.close_sent:
            super().shutdown()
            return
        self.handshake_complete = self.disconnected = True  # who works on it says nothing more
        self.transport.write(refusal(ShuttingDown("the gateway stops; come back to another")))
        self.transport.close()

    def begin(self, request: Request) -> None:
        """Take a request that was parsed already; what comes after it are frames."""
        self.conn.parser = StateMachine.parse(self.conn)
        next(self.conn.parser)
        self.handle_connect(request)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.handshake_exc is not None and not self.handshake_initiated:
            # It cannot be read as a handshake (a body, too many or too long headers): the state
            # machine only falls silent then, and the peer would wait for ever.
            self.handshake_initiated = self.handshake_complete = self.close_sent = True
            error = BadRequest("expected a handshake without a body, with few and short headers")
            self.transport.write(refusal(error))
            self.transport.close()

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        # A detached connection knows no extensions, so where one was negotiated uvicorn goes on.
        if self.response.status_code == 101 and not self.conn.extensions:
            cast(Any, self.scope)["extensions"][EXTENSION] = self.detach

    def detach(self, factory: Callable[[Transport], S]) -> S:
        """Hand the connection over after it was accepted, with what the peer sent since."""
        self.stop_keepalive()
        transport = self.transport
        connection = factory(transport)
        transport.set_protocol(connection)
        if self.read_paused:
            transport.resume_reading()
        self.connections.discard(self)
        cast(Any, self.scope)["extensions"].pop(EXTENSION)
        self.transport = GONE
        if self.disconnected or transport.is_closing():
            connection.connection_lost(None)
        else:
            connection.adopt(self.conn, self._early())
        return connection

    def _early(self) -> list[tuple[Opcode, bytes]]:
        """Return the messages that came before the connection was detached."""
        early = []
        while not self.queue.empty():
            message = self.queue.get_nowait()
            if message["type"] == "websocket.receive":
                text = message.get("text")
                if text is not None:
                    early.append((Opcode.TEXT, text.encode()))
                else:
                    early.append((Opcode.BINARY, message.get("bytes") or b""))
        return early
