"""Server-Sent Events: the same subscriptions for a plain `EventSource`."""

import asyncio
from collections.abc import AsyncIterator

from sse_starlette import EventSourceResponse
from starlette.requests import Request as HTTPRequest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.errors import BadRequest, CloseCode, GatewayError, TooManySubscriptions
from gateway.hub.subscription import Encoding, Request
from gateway.limits.quotas import Holding
from gateway.principals import Caller, Transport
from gateway.transports import frames
from gateway.transports.connection import SILENT_BEATS, Buffered, Detached, watch_peer
from gateway.transports.door import Door, parse_after, parse_pace

HEADERS = {
    "cache-control": "no-store",
    "content-type": "text/event-stream",
    "x-accel-buffering": "no",  # nginx would hold the events back
}
REFUSED_RETRY_MS = 3000


class DetachedEventStream(Detached):
    """An event stream on a detached connection: chunks of an HTTP/1.1 body."""

    __slots__ = ()

    @property
    def encoding(self) -> Encoding:
        return frames.EVENT_STREAM_CHUNKS

    def __init__(self, transport: asyncio.Transport, door: Door, caller: Caller) -> None:
        super().__init__(transport, door.hub, caller)
        watch_peer(transport, SILENT_BEATS * door.heartbeat)
        door.hub.open(self)

    def wrap(self, block: bytes) -> bytes:
        return frames.chunk(block)

    def beat(self, sign: bytes) -> None:
        self.write(sign)  # whether the peer is there, TCP finds out

    def goodbye(self, code: CloseCode, retry_ms: int) -> None:
        self.end(self.wrap(frames.sse_goodbye(code, retry_ms)) + frames.LAST_CHUNK)


class PlainEventStream(Buffered):
    """The same on any ASGI server."""

    @property
    def encoding(self) -> Encoding:
        return frames.EVENT_STREAM_BLOCKS

    def __init__(self, door: Door, caller: Caller) -> None:
        super().__init__(door.hub, caller)
        door.hub.open(self)

    def wrap(self, block: bytes) -> bytes:
        return block

    def goodbye(self, code: CloseCode, retry_ms: int) -> None:
        self.end(frames.sse_goodbye(code, retry_ms))


class DetachedResponse(Response):
    """Sends the head through ASGI, so that all middleware sees it, and then detaches."""

    def __init__(self, door: Door, wish: "Wish", holding: Holding) -> None:
        self.status_code = 200
        self.background = None
        # It ends with the stream, and a client that kept it for its next request would lose that.
        self.init_headers({**HEADERS, "connection": "close"})
        self._door = door
        self._wish = wish
        self._holding = holding

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            connection = scope["extensions"]["gateway.detach"](
                lambda transport: DetachedEventStream(transport, self._door, self._wish.caller)
            )
        except BaseException:
            self._holding.close()
            raise
        self._door.hold(connection, self._holding)
        if self._door.admit(connection):
            self._wish.subscribe(self._door, connection)


class Wish:
    """What a request for an event stream asks for."""

    def __init__(self, door: Door, request: HTTPRequest, caller: Caller) -> None:
        """Read the request.

        Raises `BadRequest`, `UnknownChannel`, `TooManySubscriptions`, `Forbidden`, `Unauthorized`.
        """
        self.caller = caller
        query = request.query_params
        channels = tuple(dict.fromkeys(query.getlist("channel")))
        if not channels:
            raise BadRequest("expected at least one ?channel= in the query")
        if len(channels) > door.max_subscriptions:
            raise TooManySubscriptions(
                f"expected at most {door.max_subscriptions} channels but got {len(channels)}"
            )
        self.channels = tuple(
            door.dispatcher.guard.check_channel(name, caller) for name in channels
        )
        token = request.headers.get("last-event-id") or query.get("last_event_id")
        self._after = parse_after(token or None)
        self._reserved = door.dispatcher.guard.reserved(self.channels, self._after, caller)
        self._paces = door.paces(self.channels, parse_pace(query))

    def subscribe(self, door: Door, connection: DetachedEventStream | PlainEventStream) -> None:
        """Subscribe a connection to what was asked for."""

        def refuse(error: GatewayError) -> None:
            connection.goodbye(CloseCode.SHUTDOWN, REFUSED_RETRY_MS)

        door.hub.subscribe(
            connection,
            Request(
                self.channels,
                self._after,
                acknowledge=lambda standings: connection.wrap(
                    frames.sse_subscribed(standings, self._paces)
                ),
                refuse=refuse,
                paces=self._paces,
                reserved=self._reserved,
            ),
        )


async def endpoint(request: HTTPRequest) -> Response:
    """`GET /sse?channel=a&channel=b`: an event stream, detached where the server can."""
    door: Door = request.app.state.door
    if request.method == "HEAD":
        return Response(headers=HEADERS)
    caller = await door.identify(request, Transport.SSE)
    wish = Wish(door, request, caller)
    await door.dispatcher.guard.check_owner(wish.channels, caller)
    holding = await door.dispatcher.guard.enter(caller, subscriptions=len(wish.channels))
    if "gateway.detach" in request.scope.get("extensions", {}):
        return DetachedResponse(door, wish, holding)
    return PlainResponse(door, wish, holding)


class PlainResponse(EventSourceResponse):
    """The stream for any ASGI server."""

    def __init__(self, door: Door, wish: Wish, holding: Holding) -> None:
        self._holding = holding
        super().__init__(
            _stream(door, wish, holding),
            ping=0,  # the hub sends our heartbeats
            headers=HEADERS,
            send_timeout=SILENT_BEATS * door.heartbeat,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._holding.close()


async def _stream(door: Door, wish: Wish, holding: Holding) -> AsyncIterator[bytes]:
    connection = PlainEventStream(door, wish.caller)
    door.hold(connection, holding)
    try:
        if door.admit(connection):
            wish.subscribe(door, connection)
        async for data in connection.chunks():
            yield data
    finally:
        connection.lost()
