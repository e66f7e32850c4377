"""The way of a WebSocket from its request to whoever takes the connection over. RFC 6455, 4.2.

uvicorn's protocol for it does far more than that, for each of the thousands who come back after a
restart. It takes over where an application goes on by ASGI instead of detaching the connection.
"""

import asyncio
import logging
import re
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, TypeVar

from uvicorn.protocols.utils import (
    ClientDisconnected,
    get_client_addr,
    get_path_with_query_string,
)
from uvicorn.server import ServerState
from websockets.utils import accept_key

from gateway.errors import ShuttingDown
from gateway.transports.refusals import Handshake, refusal
from gateway.transports.rfc6455 import DetachedSocket
from gateway.transports.uvicorn_websocket import (
    EXTENSION,
    GONE,
    RawHeaders,
    WebSocketProtocol,
    request_of,
)

S = TypeVar("S", bound=DetachedSocket)

logger = logging.getLogger("uvicorn.error")

_USUAL = {b"upgrade": b"websocket", b"connection": b"Upgrade", b"sec-websocket-version": b"13"}
"""What browsers and libraries send; anything else that means the same is read with more care."""
_KEY = re.compile(rb"[A-Za-z0-9+/]{21}[AQgw]==")
"""16 bytes in base64. RFC 6455, section 4.1."""
_UNUSUAL = (b"sec-websocket-protocol", b"transfer-encoding", b"content-length")


def answer(url: bytes, headers: RawHeaders) -> str | bytes:
    """Return the `Sec-WebSocket-Accept` that agrees to a handshake, or the whole refusal of it."""
    sent = dict(headers)
    key = sent.get(b"sec-websocket-key", b"")
    if (
        len(sent) == len(headers)
        and all(sent.get(name) == value for name, value in _USUAL.items())
        and _KEY.fullmatch(key)
        and not any(name in sent for name in _UNUSUAL)
    ):
        return accept_key(key.decode())
    response = Handshake().accept(request_of(url, headers))
    if response.status_code != 101:
        return response.serialize()
    return response.headers["Sec-WebSocket-Accept"]


class Upgrade(asyncio.Protocol):
    """A handshake that was found right, while the application looks who is asking.

    `scope["extensions"]["gateway.detach"](factory)` hands the socket over once it is accepted.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        state: ServerState,
        request: Mapping[str, Any],
        accept: str,
        whole: Callable[[], WebSocketProtocol],
    ) -> None:
        """`request` is the scope of the HTTP request; `whole` makes uvicorn's protocol."""
        self.transport = transport
        self._state = state
        self._accept = accept
        self._make_whole = whole
        self._whole: WebSocketProtocol | None = None
        """Uvicorn's protocol, which has the connection now."""
        self._asked = False
        """The application knows that somebody wants to connect."""
        self._accepted = False
        self._agreed = b""
        """The answer that says so, while it was not sent."""
        self._lost = False
        self._early = b""
        """What the peer sent since."""
        self.scope: MutableMapping[str, Any] = {
            **request,
            "type": "websocket",
            "asgi": {**request["asgi"], "spec_version": "2.4"},
            "scheme": "wss" if request["scheme"] == "https" else "ws",
            "subprotocols": _subprotocols(request["headers"]),
            "extensions": {"websocket.http.response": {}, EXTENSION: self.detach},
        }

    def begin(self, app: Any, loop: asyncio.AbstractEventLoop) -> None:
        """Take the connection, and have the application look at the handshake."""
        self._state.connections.add(self)  # type: ignore[arg-type]
        self.transport.set_protocol(self)
        task = loop.create_task(self._run(app))
        task.add_done_callback(self._state.tasks.discard)
        self._state.tasks.add(task)

    async def _run(self, app: Any) -> None:
        try:
            await app(self.scope, self._receive, self._send)
        except ClientDisconnected:
            pass
        except Exception:
            logger.exception("Exception in ASGI application\n")
            self._fail()
        else:
            if not self._is_answered:
                logger.error("ASGI callable returned without completing handshake.")
                self._fail()
        finally:
            if self._whole is None:
                self.transport.close()
            elif self._whole.close_timer is None:
                self._whole.transport.close()

    async def _receive(self) -> Any:
        if not self._asked:
            self._asked = True
            return {"type": "websocket.connect"}
        return await self._hand_over().receive()

    async def _send(self, message: Any) -> None:
        if message["type"] != "websocket.accept" or self._whole is not None:
            await self._hand_over().send(message)
            return
        if self._lost:
            raise ClientDisconnected
        if logger.isEnabledFor(logging.INFO):
            scope: Any = self.scope
            client, path = get_client_addr(scope), get_path_with_query_string(scope)
            logger.info('%s - "WebSocket %s" [accepted]', client, path)
        self._accepted = True
        self._agreed = self._agreement(message)
        asyncio.get_running_loop().call_soon(self._agree)

    def _agree(self) -> None:
        """Tell the peer that it is accepted, unless who took the connection over does."""
        agreed, self._agreed = self._agreed, b""
        if agreed:
            self.transport.write(agreed)

    def _agreement(self, message: Mapping[str, Any]) -> bytes:
        headers = [*self._state.default_headers, *message.get("headers", [])]
        if subprotocol := message.get("subprotocol"):
            headers.append((b"sec-websocket-protocol", subprotocol.encode()))
        lines = [b"%b: %b\r\n" % each for each in headers]
        return (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: %b\r\n%b\r\n" % (self._accept.encode(), b"".join(lines))
        )

    def detach(self, factory: Callable[[asyncio.Transport], S]) -> S:
        """Hand the connection over after it was accepted.

        What is written to it at once leaves together with the answer to the handshake.
        """
        agreed, self._agreed = self._agreed, b""
        transport = self._leave()
        connection = factory(transport)
        if self._lost or transport.is_closing():
            connection.connection_lost(None)
            return connection
        transport.set_protocol(connection)
        if agreed:
            connection.precede(agreed)
        if self._early:
            self._hear_next(transport, connection.read_on, connection.data_received)
        return connection

    def _hand_over(self) -> WebSocketProtocol:
        """Have uvicorn go on."""
        if self._whole is None:
            self._agree()
            transport = self._leave()
            self._whole = self._make_whole()
            self._whole.take_over(transport, self.scope, accepted=self._accepted)
            if self._lost or transport.is_closing():
                self._whole.connection_lost(None)
            else:
                transport.set_protocol(self._whole)
                if self._early:
                    self._hear_next(transport, transport.resume_reading, self._whole.data_received)
        return self._whole

    def _hear_next(
        self,
        transport: asyncio.Transport,
        read_on: Callable[[], None],
        hear: Callable[[bytes], None],
    ) -> None:
        """Have what came early be heard when whoever accepted the connection is done with that."""

        def listen() -> None:
            if not transport.is_closing():
                read_on()
                hear(self._early)

        asyncio.get_running_loop().call_soon(listen)

    def _leave(self) -> asyncio.Transport:
        self._state.connections.discard(self)
        self.scope["extensions"].pop(EXTENSION, None)
        transport, self.transport = self.transport, GONE
        return transport

    @property
    def _is_answered(self) -> bool:
        whole = self._whole
        return self._accepted or self._lost or (whole is not None and whole.handshake_complete)

    def _fail(self) -> None:
        if not self._is_answered:
            self._hand_over().send_500_response()

    def shutdown(self) -> None:
        """The server stops: who is not let in yet is sent away."""
        self._agree()
        if not self._accepted:
            self._lost = True  # who works on it says nothing more
            self.transport.write(refusal(ShuttingDown("the gateway stops; come back to another")))
        self.transport.close()

    # What the event loop calls

    def data_received(self, data: bytes) -> None:
        self._early += data
        self.transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self._state.connections.discard(self)


def _subprotocols(headers: RawHeaders) -> list[str]:
    return [
        each.strip()
        for name, value in headers
        if name == b"sec-websocket-protocol"
        for each in value.decode("latin-1").split(",")
    ]
