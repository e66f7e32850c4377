"""A gateway in the small, which does on demand what a real one does only when things go wrong.

It speaks the gateway's side of `/ws`, `/sse` and `/events` over real sockets; behind a proxy that
can lose connections. What it sends is up to the test.
"""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from tests.proxy import Proxy

EARLIEST = "earliest"


@dataclass(eq=False)
class Listener:
    """One connection: what it is subscribed to, and what waits to be sent. None ends it."""

    frames: "asyncio.Queue[str | tuple[int, str] | None]" = field(default_factory=asyncio.Queue)
    channels: set[str] = field(default_factory=set)
    sse: bool = False

    def put(self, event: str, position: str) -> None:
        frame = f"id: {position}\ndata: {event}\n\n" if self.sse else _event(event, position)
        self.frames.put_nowait(frame)


class Peer:
    """The state of the small gateway, and the levers."""

    def __init__(self) -> None:
        self.epoch = "e1"
        self.log: list[tuple[int, str, str]] = []
        self.floor: dict[str, int] = {}
        self.listeners: set[Listener] = set()
        self.requests: list[dict[str, Any]] = []
        """Every subscribe frame, or for SSE its channels and position."""
        self.authorizations: list[str | None] = []
        self.bodies: list[tuple[str, Any]] = []
        """Media type and content of every POST to `/events` that got through."""
        self.answers: list[Response] = []
        """What `/events` answers first, before it begins to accept."""
        self.refusals: list[Response] = []
        """What `/sse` and the handshake of `/ws` answer first."""
        self.greetings: list[str] = []
        """Frames for each new WebSocket, instead of the answer to what it asks."""
        self.app = Starlette(
            routes=[
                WebSocketRoute("/ws", self._ws),
                Route("/sse", self._sse),
                Route("/events", self._events, methods=["POST"]),
            ]
        )

    def position(self, number: int) -> str:
        return f"{self.epoch}-{number}-0"

    @property
    def here(self) -> str:
        return self.position(self.log[-1][0] if self.log else 0)

    def publish(self, channel: str, data: object = None, **attributes: object) -> str:
        """Append an event and send it to whoever is subscribed. Returns its position."""
        number = self.log[-1][0] + 1 if self.log else 1
        event = {"specversion": "1.0", "id": f"n{number}", "source": "/t", "type": "t.happened"}
        encoded = json.dumps({**event, **attributes, "data": data, "channel": channel})
        self.log.append((number, channel, encoded))
        for listener in self.listeners:
            if channel in listener.channels:
                listener.put(encoded, self.position(number))
        return self.position(number)

    def say(self, frame: str) -> None:
        """Send these very bytes to every connection."""
        for listener in self.listeners:
            listener.frames.put_nowait(frame)

    def close(self, code: int, reason: str = "") -> None:
        """Close every WebSocket with this code, and end every event stream."""
        for listener in self.listeners:
            listener.frames.put_nowait(None if listener.sse else (code, reason))

    def trim(self, channel: str, upto: int) -> None:
        """Forget the channel's events up to and including this number."""
        self.log = [each for each in self.log if each[1] != channel or each[0] > upto]
        self.floor[channel] = upto

    def begin_anew(self) -> None:
        """Replace the log by an empty one of another epoch."""
        self.epoch = f"e{int(self.epoch[1:]) + 1}"
        self.log.clear()
        self.floor.clear()

    def _resume(self, listener: Listener, channel: str, after: str | None) -> tuple[str, bool, int]:
        """Return where the channel's subscription begins, whether all is there, and the number."""
        listener.channels.add(channel)
        self.listeners.add(listener)
        if after is None:
            return self.here, True, self.log[-1][0] if self.log else 0
        if after == EARLIEST:
            return self.position(0), True, 0
        epoch, number, _ = after.split("-")
        if epoch != self.epoch:
            return self.position(0), False, 0
        return after, int(number) >= self.floor.get(channel, 0), int(number)

    async def _ws(self, websocket: WebSocket) -> None:
        self.authorizations.append(websocket.headers.get("authorization"))
        if self.refusals:
            await websocket.send_denial_response(self.refusals.pop(0))
            return
        await websocket.accept()
        listener = Listener()
        for frame in self.greetings:
            listener.frames.put_nowait(frame)
        async with asyncio.TaskGroup() as tasks:
            sender = tasks.create_task(_send(websocket, listener))
            with suppress(WebSocketDisconnect):
                while True:
                    self._frame(listener, json.loads(await websocket.receive_text()))
            self.listeners.discard(listener)
            sender.cancel()

    def _frame(self, listener: Listener, frame: dict[str, Any]) -> None:
        wanted = frame["subscribe"]
        self.requests.append(wanted)
        if self.greetings:
            return
        channel = wanted["channel"]
        position, recovered, after = self._resume(listener, channel, wanted.get("after"))
        reply = {"channel": channel, "position": position, "recovered": recovered}
        listener.frames.put_nowait(json.dumps({"id": frame["id"], "subscribed": reply}))
        for number, name, event in self.log:
            if name == channel and number > after and "after" in wanted:
                listener.put(event, self.position(number))

    async def _sse(self, request: Request) -> Response:
        self.authorizations.append(request.headers.get("authorization"))
        if self.refusals:
            return self.refusals.pop(0)
        listener = Listener(sse=True)
        channels = request.query_params.getlist("channel")
        after = request.headers.get("last-event-id") or request.query_params.get("last_event_id")
        self.requests.append({"channels": channels, "after": after})
        replies, numbers = {}, [0]
        start = self.here
        for channel in channels:
            start, recovered, number = self._resume(listener, channel, after)
            replies[channel] = {"recovered": recovered, "position": start}
            numbers.append(number)
        data = json.dumps({"channels": replies})
        listener.frames.put_nowait(f"id: {start}\nevent: subscribed\ndata: {data}\n\n")
        for number, name, event in self.log:
            if name in channels and number > max(numbers) and after:
                listener.put(event, self.position(number))
        return StreamingResponse(self._stream(listener), media_type="text/event-stream")

    async def _stream(self, listener: Listener) -> AsyncIterator[str]:
        try:
            while isinstance(frame := await listener.frames.get(), str):
                yield frame
        finally:
            self.listeners.discard(listener)

    async def _events(self, request: Request) -> Response:
        self.authorizations.append(request.headers.get("authorization"))
        if self.answers:
            return self.answers.pop(0)
        body = await request.json()
        self.bodies.append((request.headers["content-type"], body))
        events = body if isinstance(body, list) else [body]
        for event in events:
            self.publish(event.get("channel", "orders"), event.get("data"), id=event["id"])
        return JSONResponse({"ids": [event["id"] for event in events]}, 202)


async def _send(websocket: WebSocket, listener: Listener) -> None:
    while frame := await listener.frames.get():
        if isinstance(frame, str):
            await websocket.send_text(frame)
        else:
            await websocket.close(*frame)
            return


def _event(event: str, position: str) -> str:
    return f'{{"event":{event},"position":"{position}"}}'


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Any:
        yield  # they are the test runner's


@dataclass(frozen=True)
class Network:
    """The small gateway, and the cable to it."""

    peer: Peer
    proxy: Proxy

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.proxy.port}"


@asynccontextmanager
async def network(make: Callable[[], Peer] = Peer) -> AsyncIterator[Network]:
    """Run the small gateway behind the proxy."""
    peer = make()
    config = uvicorn.Config(peer.app, lifespan="off", log_config=None, ws="websockets-sansio")
    server = _Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        task = asyncio.create_task(server.serve(sockets=[listening]))
        proxy = Proxy(listening.getsockname()[1])
        await proxy.open()
        try:
            yield Network(peer, proxy)
        finally:
            await proxy.refuse()
            server.should_exit = server.force_exit = True
            await task
