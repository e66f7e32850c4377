"""uvicorn's WebSocket protocol, for handshakes that are refused and whatever is not detached."""

from asyncio import Transport
from collections.abc import Sequence
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.datastructures import Headers
from websockets.http11 import Request
from websockets.protocol import OPEN
from websockets.protocol import Protocol as StateMachine

from gateway.errors import BadRequest, ShuttingDown
from gateway.transports.refusals import Handshake, refusal

RawHeaders = Sequence[tuple[bytes, bytes]]
"""Names in lower case, with their values."""

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
    """WebSocket by uvicorn, with problem documents."""

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

    def take_over(self, transport: Transport, scope: Any, *, accepted: bool) -> None:
        """Go on with a request that was parsed already, from where its handshake stands."""
        self.connection_made(transport)
        self.scope = scope
        self.handshake_initiated = True
        self.handshake_complete = accepted
        self.conn.parser = StateMachine.parse(self.conn)  # what comes now are frames
        next(self.conn.parser)
        if accepted:
            self.conn.state = OPEN
            self.start_keepalive()
        else:
            url = scope["raw_path"] + b"?" + scope["query_string"]
            self.response = self.conn.accept(request_of(url, scope["headers"]))

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.handshake_exc is not None and not self.handshake_initiated:
            # It cannot be read as a handshake (a body, too many or too long headers): the state
            # machine only falls silent then, and the peer would wait for ever.
            self.handshake_initiated = self.handshake_complete = self.close_sent = True
            error = BadRequest("expected a handshake without a body, with few and short headers")
            self.transport.write(refusal(error))
            self.transport.close()


def request_of(url: bytes, headers: RawHeaders) -> Request:
    """Return a request that was parsed, as the library looks at it."""
    decoded = Headers()
    for name, value in headers:
        decoded[name.decode("ascii")] = value.decode("latin-1")
    return Request(url.decode(), decoded)
