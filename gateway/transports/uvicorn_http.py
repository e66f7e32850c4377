"""uvicorn's HTTP protocol, with one thing more: an ASGI endpoint can detach its connection.

`scope["extensions"]["gateway.detach"](factory)` hands the socket over: `factory` is given the
transport and returns the protocol that owns it from then on. The ASGI server forgets the
connection, and the endpoint returns.
"""

import asyncio
import random
from asyncio import TimerHandle, Transport
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar, cast
from urllib.parse import unquote

from httptools import (
    HttpParserError,
    HttpParserInvalidURLError,
    HttpParserUpgrade,
    HttpRequestParser,
    parse_url,
)
from starlette.requests import ClientDisconnect
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.errors import BadRequest, GatewayError, HeadTooLarge, RequestTimeout, ShuttingDown
from gateway.limits.firstline import PENALTY, FirstLine, too_often
from gateway.transports.connection import FAREWELL, Detached
from gateway.transports.refusals import refusal
from gateway.transports.turnstile import Turnstile
from gateway.transports.upgrade import Upgrade, answer
from gateway.transports.uvicorn_websocket import EXTENSION, GONE, WebSocketProtocol

D = TypeVar("D", bound=Detached)

MAX_HEAD = 64 << 10
"""Bytes of a request's head, or of its trailers. The parser has no bound of its own, and copies a
line that grows with every read: a large one would hold up everybody."""
HESITATION = 0.5
"""Seconds after which who asks too often through a proxy is refused. Its next request, which waits
for that, costs nothing meanwhile; and the proxy's connection is not taken up for long."""
HEAD_PATIENCE = 20.0
"""Seconds for the head of a request to come."""
READ_PATIENCE = 60.0
"""Seconds for a peer to read 64 KiB of an answer."""
UNWANTED = 256 << 10
"""Bytes of a body, of a request that was answered already, that are read in one go. It is read
because its sender may look for the answer when it has sent all; and others come first."""
LEISURE = 0.1
"""Seconds between two of these."""


class _TooHasty(Exception):
    """A request came before the one before was answered."""


class HTTPProtocol(HttpToolsProtocol):
    """HTTP/1.1 by uvicorn. A GET can become a detached event stream."""

    _unparsed = 0
    """Bytes that came since the parser last told of a whole head or a piece of a body."""
    _deadline: TimerHandle | None = None
    """For a head to come, while nothing else is going on."""
    _unread: TimerHandle | None = None
    """For the peer to read what waits for it."""
    _ignored = False
    """The request wants another protocol than ours, and is being read once more without that."""
    _deaf: TimerHandle | None = None
    """Until when nothing is read."""
    _unheard = b""
    """What came all the same: uvloop reads once before it heeds a new connection's pause."""
    _queues = False
    """It is before the turnstile."""
    _inside = False
    """It has come through the turnstile."""
    _unwanted = 0
    """Bytes of bodies that nobody wants, since the last pause."""
    _hasty = False
    """It sent a request before the one before was answered: that one is its last."""
    _unwelcome = False
    """The request that is being read was refused before anything was looked at."""
    turnstile: Turnstile | None = None
    """Through which new connections come; None: they come in at once."""
    first_line: FirstLine | None = None
    """Counts what each address asks; None: nobody does."""
    answer: Callable[[GatewayError], Any] | None = None
    """Returns the ASGI application that answers with an error."""

    @classmethod
    def behind(
        cls, turnstile: Turnstile, first_line: FirstLine, answer: Callable[[GatewayError], Any]
    ) -> "type[HTTPProtocol]":
        """Return the same protocol for one server, behind whose turnstile requests are counted.

        `answer` returns the ASGI application that answers with an error.
        """
        members = {
            "turnstile": turnstile,
            "first_line": first_line,
            "answer": staticmethod(answer),
        }
        return type(cls.__name__, (cls,), members)

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self._is_shut:  # its TLS handshake took until now
            transport.abort()
            return
        self._await_head()
        if self.first_line and self.client and (pause := self.first_line.early(self.client[0])):
            self._be_deaf(pause)

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_came()
        self._was_read()
        self._listen()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser. uvicorn's own answers what is no request in plain text, and warns."""
        if self._deaf is not None:
            self._unheard += data
            self.transport.pause_reading()
            return
        if not self._inside and not self._enters(data):
            return
        if self._hasty:
            self._pass_over(len(data))
            return
        self._unset_keepalive_if_required()
        self._unparsed += len(data)
        try:
            self.parser.feed_data(data)
        except HttpParserUpgrade as upgrade:
            rest = data[upgrade.args[0] :]
            if self._should_upgrade():
                self.handle_websocket_upgrade(rest)
                return
            self._read_without_upgrade(rest)
        except HttpParserError:
            self._stumble()
        if self._unparsed > MAX_HEAD:
            self._refuse(HeadTooLarge(f"expected at most {MAX_HEAD} bytes"))
        elif self.cycle is None or self.cycle.response_complete:
            self._await_head()  # whatever came was no whole head, or a body that nobody wants

    def _enters(self, data: bytes) -> bool:
        """Return whether a new connection may come in now. If not, it does later, with its data."""
        if not self._queues and (self.turnstile is None or self.turnstile.enter(self._come_in)):
            self._inside = True
            return True
        self._queues = True
        self._head_came()  # it is not late because it has to wait
        self._unheard += data
        self.transport.pause_reading()
        return False

    @property
    def _is_shut(self) -> bool:
        return self.turnstile is not None and self.turnstile.closed

    def _come_in(self) -> None:
        self._inside = True
        if self._is_shut:
            self._refuse(ShuttingDown("the gateway stops; nothing was read of this request"))
        elif not self.transport.is_closing():
            data, self._unheard = self._unheard, b""
            self.transport.resume_reading()
            self.data_received(data)

    def _stumble(self) -> None:
        """The parser has broken off."""
        if not self._hasty:
            self._refuse(BadRequest("expected a request of HTTP/1.1"))

    def _read_without_upgrade(self, rest: bytes) -> None:
        """Read on as if nothing but HTTP/1.1 had been asked for, which RFC 9110, 7.8, allows.

        The parser takes what follows the head for the other protocol, so that a body would be lost.
        """
        if self.scope["method"] == "CONNECT":
            self._refuse(BadRequest("expected a request for this server but got CONNECT"))
            return
        version = self.parser.get_http_version().encode()
        head = [self.scope["method"].encode(), b" ", self.url, b" HTTP/", version, b"\r\n"]
        for name, value in self.headers:
            if name != b"upgrade":
                head += [name, b": ", value, b"\r\n"]
        self.parser = HttpRequestParser(self)
        self._ignored = False
        self.data_received(b"".join([*head, b"\r\n", rest]))

    def on_message_begin(self) -> None:
        """Begin a request, if the one before was answered.

        A few bytes can be a request, and one read can hold ten thousand. Who sends several at once
        gets the first one answered and the connection closed, as RFC 9112, 9.3, allows; no browser
        does it, and who does must be ready to send the others again.
        """
        if self.cycle is not None and not self.cycle.response_complete:
            self._hasty = True
            self._unparsed = 0
            self.cycle.keep_alive = False
            raise _TooHasty  # which ends the parsing
        super().on_message_begin()
        self._await_head()

    def on_body(self, body: bytes) -> None:
        self._unparsed = 0
        super().on_body(body)
        if self.cycle.response_complete:
            self._pass_over(len(body))

    def _pass_over(self, size: int) -> None:
        self._unwanted += size
        if self._unwanted > UNWANTED:
            self._unwanted = 0
            self._be_deaf(LEISURE)

    def on_message_complete(self) -> None:
        self._unparsed = 0
        if not self._ignored:
            super().on_message_complete()

    def _get_upgrade(self) -> bytes | None:
        """Return the one protocol that is asked for instead. uvicorn knows no list over two lines.

        Whoever speaks HTTP/1.0 asks for nothing: RFC 9110, 7.8.
        """
        if self.parser.get_http_version() == "1.0":
            return None
        options = [value for name, value in self.headers if name == b"connection"]
        if b"upgrade" not in [each.strip() for each in b",".join(options).lower().split(b",")]:
            return None
        wanted = [value.lower() for name, value in self.headers if name == b"upgrade"]
        return wanted[-1] if wanted else None

    def _await_head(self) -> None:
        if self._deadline is None and not self.transport.is_closing():
            late = RequestTimeout(f"expected a request within {HEAD_PATIENCE:g} s")
            self._deadline = self.loop.call_later(HEAD_PATIENCE, self._refuse, late)

    def _head_came(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _refuse(self, error: GatewayError) -> None:
        self._head_came()
        if self.transport.is_closing():
            return
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            self.transport.write(refusal(error))
        elif not cycle.response_started and not self.pipeline:
            self.transport.write(refusal(error))
            cycle.disconnected = True  # who works on the request hears of it, and says nothing
            cycle.message_event.set()
        self._close()

    def _close(self) -> None:
        """Close, and do not wait for ever for the peer to read what was written before."""
        self.transport.close()
        self.loop.call_later(FAREWELL, self.transport.abort)

    def timeout_keep_alive_handler(self) -> None:
        if not self.transport.is_closing():
            self._close()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._unread is None:
            self._unread = self.loop.call_later(READ_PATIENCE, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._was_read()

    def _was_read(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def on_headers_complete(self) -> None:
        self._unparsed = 0
        self._head_came()
        self._ignored = self.parser.should_upgrade() and not self._should_upgrade()
        if self._ignored:
            self.scope["method"] = self.parser.get_method().decode("ascii")
            return
        self.scope["extensions"] = cast(Any, {EXTENSION: self.detach})
        if not self.url.startswith((b"/", b"*")):
            self._heed_target()
        pause = self._ask()
        self._unwelcome = pause > 0
        if not pause:
            super().on_headers_complete()
            return
        app, self.app = self.app, cast(Any, self._turn_away(pause))
        super().on_headers_complete()
        self.app = app

    def _turn_away(self, pause: float) -> Callable[..., Awaitable[None]]:
        """Return the application that answers a request which came too often, when it is time."""

        async def turn_away(scope: Any, receive: Any, send: Any) -> None:
            assert self.answer is not None
            if self._deaf is None:  # a proxy's connection, which others need as well
                await asyncio.sleep(random.uniform(0.5, 1.5) * HESITATION)
            await self.answer(too_often(pause))(scope, receive, send)

        return turn_away

    def _ask(self) -> float:
        """Return 0 if the request may come in, or for how many seconds its sender must be quiet."""
        if self.first_line is None or self.client is None:
            return 0.0
        peer = self.client[0]
        pause = self.first_line.ask(peer, lambda: map(_text, self.headers))
        if pause and not self.first_line.is_proxy(peer):  # there, others speak over it too
            self._be_deaf(pause)
        return pause

    def _be_deaf(self, seconds: float) -> None:
        """Read nothing for a while: whoever asks too often costs nothing meanwhile."""
        if self._deaf is None:
            self.transport.pause_reading()
            # Not for all connections equally long: they would all come back in one moment.
            self._deaf = self.loop.call_later(random.uniform(1.0, 1.5) * seconds, self._listen)

    def _listen(self) -> None:
        if self._deaf is not None:
            self._deaf.cancel()
            self._deaf = None
            if not self.transport.is_closing():
                data, self._unheard = self._unheard, b""
                if not self.flow.read_paused:
                    self.transport.resume_reading()
                if data:
                    self.data_received(data)

    def _heed_target(self) -> None:
        """Take the host from a target that names one, as RFC 9112, 3.2.2, demands."""
        target = parse_url(self.url)
        host = target.host if target.port is None else b"%b:%d" % (target.host, target.port)
        self.headers[:] = [
            (name, host if name == b"host" else value) for name, value in self.headers
        ]

    def handle_websocket_upgrade(self, early: bytes = b"") -> None:
        """Begin a WebSocket's handshake. uvicorn would write the request out and parse it again.

        `early` is what came behind the head, from a peer that did not wait for the answer.
        """
        if self._unwelcome:
            self._refuse(too_often(PENALTY))
        elif not self._is_ordinary():
            super().handle_websocket_upgrade()  # which knows what to refuse of it
        else:
            self._upgrade(early)
        self._forget()

    def _upgrade(self, early: bytes) -> None:
        try:
            target = parse_url(self.url)
            path = target.path.decode("ascii")
        except (HttpParserInvalidURLError, AttributeError):
            self._refuse(BadRequest("expected a path as the target of the request"))
            return
        found = answer(self.url, self.headers)
        self.connections.discard(self)
        if isinstance(found, bytes):
            self.transport.write(found)
            self.transport.close()
            return
        self.scope["path"] = self.root_path + unquote(path)
        self.scope["raw_path"] = self.root_path.encode("ascii") + target.path
        self.scope["query_string"] = target.query or b""
        whole = partial(WebSocketProtocol, self.config, self.server_state, self.app_state)
        upgrade = Upgrade(self.transport, self.server_state, self.scope, found, whole)
        upgrade.begin(self.app, self.loop)
        if early:
            upgrade.data_received(early)

    def _is_ordinary(self) -> bool:
        """Tell whether uvicorn would find nothing wrong, and nothing to negotiate, either."""
        unusual = [b"content-length", b"transfer-encoding"]
        if self.config.ws_per_message_deflate:
            unusual.append(b"sec-websocket-extensions")
        return (
            self.scope["method"] == "GET"
            and self.url.isascii()
            and not any(name in unusual for name, _ in self.headers)
        )

    def detach(self, factory: Callable[[Transport], D]) -> D:
        """Hand the connection over, in the middle of a response whose head was sent.

        Raises `ClientDisconnect` if the peer is gone: of what is left then hardly anything works.
        """
        transport = self.transport
        if transport.is_closing():
            self.cycle.disconnected = True  # uvicorn is told later, and would miss the answer's end
            raise ClientDisconnect
        connection = factory(transport)
        self._unset_keepalive_if_required()
        transport.set_protocol(connection)
        self.flow.resume_reading()  # to hear of the peer's end
        self.cycle.response_complete = True
        self.connections.discard(self)
        self._forget()
        return connection

    def _forget(self) -> None:
        """Let go of what refers back here, so that all of it is freed at once."""
        self._head_came()
        self._was_read()
        self._listen()
        self.parser = None  # type: ignore[assignment]
        cast(Any, self.scope).pop("extensions", None)
        self.transport = GONE


def _text(header: tuple[bytes, bytes]) -> tuple[str, str]:
    name, value = header
    return name.decode("latin-1"), value.decode("latin-1")
