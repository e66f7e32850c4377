"""Subscribers of both kinds behind one interface, strict about what they are sent."""

import asyncio
import json
import socket
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Self
from urllib.parse import urlencode

import h11
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from gateway.channels import Position

PATIENCE = 30.0
"""Seconds to wait for what must come."""
NARROW = 4096
"""Bytes that the kernel keeps for a subscriber that will not read."""


@dataclass(frozen=True, slots=True)
class Subscribed:
    """The answer to a subscription to one channel."""

    channel: str
    position: str
    recovered: bool
    max_rate: float | None = None
    conflate: bool = False


@dataclass(frozen=True, slots=True)
class Delivered:
    """One event as it came."""

    position: str
    event: dict[str, Any]

    @property
    def channel(self) -> str:
        channel: str = self.event["channel"]
        return channel


@dataclass(frozen=True, slots=True)
class Moved:
    """A heartbeat that told the position; None for one that told none."""

    position: str | None


@dataclass(frozen=True, slots=True)
class Goodbye:
    """The server's last words."""

    code: int
    retry_ms: int


Received = Subscribed | Delivered | Moved | Goodbye


class Subscriber(ABC):
    """One connection, and all that came over it, in order."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.delivered: list[Delivered] = []
        """The events alone."""
        self.standings: dict[str, Subscribed] = {}
        """The answers to subscriptions, by channel."""
        self.ended = False

    @classmethod
    @abstractmethod
    def open(cls, port: int, *channels: str, after: str | None = None, narrow: bool = False) -> Any:
        """An async context manager: connect and subscribe. `narrow` takes in little at a time."""

    @abstractmethod
    async def receive(self) -> list[Received]:
        """Wait for what comes next. At the end of the connection it sets `ended`."""

    @abstractmethod
    def abort(self) -> None:
        """Be gone, as a browser whose machine is switched off."""

    async def until(self, reached: Callable[[], object], reason: str) -> Self:
        """Take in what comes until a condition holds. Fails with `reason`, which it waited for."""
        try:
            async with asyncio.timeout(PATIENCE):
                while not reached():
                    if self.ended:
                        pytest.fail(f"the connection ended before {reason}: {self.received[-3:]}")
                    self._take(await self.receive())
        except TimeoutError:
            pytest.fail(f"within {PATIENCE:g} s it did not happen that {reason}")
        return self

    def _take(self, received: list[Received]) -> None:
        self.received += received
        for each in received:
            if isinstance(each, Delivered):
                self.delivered.append(each)
            elif isinstance(each, Subscribed):
                self.standings[each.channel] = each

    async def has(self, count: int) -> Self:
        """Wait until it has this many events."""
        return await self.until(lambda: len(self.delivered) >= count, f"{count} events came")

    async def stands(self, count: int = 1) -> Self:
        """Wait for the answers to this many subscriptions."""
        return await self.until(
            lambda: len(self.standings) >= count, f"{count} channels were subscribed"
        )

    async def end(self) -> Goodbye:
        """Wait until the server has said goodbye and closed."""
        await self.until(lambda: self.ended, "the server closed the connection")
        goodbye = self.received[-1]
        assert isinstance(goodbye, Goodbye), self.received[-3:]
        return goodbye

    def of(self, *channels: str) -> list[Any]:
        """The data of the events of these channels."""
        return [each.event["data"] for each in self.delivered if each.channel in channels]

    @property
    def data(self) -> list[Any]:
        """The data of all events."""
        return [each.event["data"] for each in self.delivered]

    @property
    def recovered(self) -> dict[str, bool]:
        return {channel: each.recovered for channel, each in self.standings.items()}

    @property
    def position(self) -> str:
        """Where it stands: the newest position that it was told."""
        told = [each.position for each in self.received if not isinstance(each, Goodbye)]
        return [position for position in told if position][-1]

    def check_order(self) -> None:
        """Check that answers came before events, and positions only moved forward.

        A heartbeat may come at any time.
        """
        kinds = [type(each) for each in self.received if not isinstance(each, Moved)]
        answers = kinds.count(Subscribed)
        assert set(kinds[:answers]) <= {Subscribed}
        positions = [Position.parse(each.position).id for each in self.delivered]
        assert all(one < other for one, other in pairwise(positions)), positions


class WebSocketSubscriber(Subscriber):
    """Over `/ws`, subscribed by the URL, in the way of the `websockets` library."""

    name: ClassVar[str] = "websocket"

    def __init__(self, websocket: ClientConnection) -> None:
        super().__init__()
        self.websocket = websocket

    @classmethod
    @asynccontextmanager
    async def open(
        cls, port: int, *channels: str, after: str | None = None, narrow: bool = False
    ) -> AsyncIterator["WebSocketSubscriber"]:
        query = [("channel", channel) for channel in channels]
        if after is not None:
            query.append(("after", after))
        async with connect(
            f"ws://127.0.0.1:{port}/ws?{urlencode(query)}",
            sock=await _connected(port, narrow=narrow),
            compression=None,
            proxy=None,
            max_size=None,
            max_queue=16 if narrow else None,
            ping_interval=None,
            close_timeout=1,
        ) as websocket:
            yield cls(websocket)

    async def receive(self) -> list[Received]:
        try:
            frame = await self.websocket.recv()
        except ConnectionClosed as closed:
            self.ended = True
            code = closed.rcvd.code if closed.rcvd else 1006
            if self.received and isinstance(self.received[-1], Goodbye):
                assert self.received[-1].code == code
            return []
        assert isinstance(frame, str)
        return [_of_frame(json.loads(frame))]

    def abort(self) -> None:
        self.websocket.transport.abort()


def _of_frame(frame: dict[str, Any]) -> Received:
    if "event" in frame:
        assert list(frame) == ["event", "position"]
        return Delivered(frame["position"], frame["event"])
    if "subscribed" in frame:
        return Subscribed(**frame["subscribed"])
    if "goodbye" in frame:
        return Goodbye(**frame["goodbye"])
    assert list(frame) == ["position"], frame
    return Moved(frame["position"])


class EventStreamSubscriber(Subscriber):
    """Over `/sse`, in the way of an `EventSource`: WHATWG HTML, section 9.2.6."""

    name: ClassVar[str] = "sse"

    def __init__(self, stream: "HTTPStream") -> None:
        super().__init__()
        self.stream = stream
        self.blocks: list[dict[str, str]] = []
        """Every block as its fields."""
        self.last_event_id = ""
        self._text = ""

    @classmethod
    @asynccontextmanager
    async def open(
        cls, port: int, *channels: str, after: str | None = None, narrow: bool = False
    ) -> AsyncIterator["EventStreamSubscriber"]:
        query = urlencode([("channel", channel) for channel in channels])
        headers = [] if after is None else [("Last-Event-ID", after)]
        async with http_stream(port, f"/sse?{query}", headers, narrow=narrow) as stream:
            assert stream.response.status_code == 200, stream.response
            yield cls(stream)

    async def receive(self) -> list[Received]:
        data = await self.stream.read()
        if not data:
            self.ended = True
            assert not self._text, "the stream ended in the middle of a block"
            return []
        self._text += data.decode()
        *blocks, self._text = self._text.split("\n\n")
        return [each for block in blocks for each in self._of_block(block)]

    def _of_block(self, block: str) -> Iterator[Received]:
        fields = dict(_fields(block))
        self.blocks.append(fields)
        self.last_event_id = fields.get("id", self.last_event_id)
        if "data" not in fields:
            assert set(fields) == {""}, fields
            yield Moved(None)
            return
        data = json.loads(fields["data"])
        match fields.get("event", "message"):
            case "message":
                yield Delivered(self.last_event_id, data)
            case "subscribed":
                for channel, standing in data["channels"].items():
                    yield Subscribed(channel, **standing)
            case "position":
                yield Moved(self.last_event_id)
            case "goodbye":
                assert int(fields["retry"]) == data["retry_ms"]
                yield Goodbye(**data)
            case other:
                pytest.fail(f"an event of the unknown name {other!r} came")

    def abort(self) -> None:
        self.stream.abort()


def _fields(block: str) -> Iterator[tuple[str, str]]:
    """Give the fields of a block; a comment is a field without a name."""
    assert "\r" not in block, "a carriage return would end a line"
    for line in block.split("\n"):
        name, colon, value = line.partition(":")
        assert colon, f"expected a field but got {line!r}"
        assert name in ("", "id", "event", "data", "retry"), line
        yield name, value.removeprefix(" ")


class HTTPStream:
    """One HTTP/1.1 response that comes bit by bit, checked by h11."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        self._http = h11.Connection(h11.CLIENT)
        self.response: h11.Response

    async def request(self, target: str, headers: list[tuple[str, str]], method: str) -> None:
        """Send a request without a body, and wait for the head of the response."""
        request = h11.Request(method=method, target=target, headers=[("Host", "test"), *headers])
        self.writer.write(self._http.send(request) + self._http.send(h11.EndOfMessage()))
        response = await self._next()
        assert isinstance(response, h11.Response)
        self.response = response

    async def read(self) -> bytes:
        """Return some bytes of the body; none at its end."""
        event = await self._next()
        if isinstance(event, h11.Data):
            return bytes(event.data)
        assert isinstance(event, h11.EndOfMessage | h11.ConnectionClosed), event
        return b""

    async def _next(self) -> Any:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(await self._reader.read(65536))
        return event

    def abort(self) -> None:
        self.writer.transport.abort()


@asynccontextmanager
async def http_stream(
    port: int,
    target: str,
    headers: list[tuple[str, str]],
    *,
    method: str = "GET",
    narrow: bool = False,
) -> AsyncIterator[HTTPStream]:
    """Send a request over a connection of its own."""
    reader, writer = await asyncio.open_connection(sock=await _connected(port, narrow=narrow))
    stream = HTTPStream(reader, writer)
    try:
        async with asyncio.timeout(PATIENCE):
            await stream.request(target, headers, method)
        yield stream
    finally:
        writer.close()


async def _connected(port: int, *, narrow: bool) -> socket.socket:
    sock = socket.socket()
    sock.setblocking(False)
    if narrow:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, NARROW)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    return sock


Kind = type[WebSocketSubscriber] | type[EventStreamSubscriber]
KINDS: tuple[Kind, ...] = (WebSocketSubscriber, EventStreamSubscriber)
