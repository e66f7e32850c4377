"""Subscribers of all kinds. Each writes into its diary what it is told, and comes back for ever."""

import asyncio
import json
import random
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from gateway import client
from gateway.channels import EARLIEST, Position
from tests.e2e.chaos.history import ALL, BRIEF, Delivered, Diary, Subscribed

SILENCE = 4.0
"""Seconds without a sign of life after which a subscriber gives up: four heartbeats."""
RETURN = 0.3
"""Seconds within which it comes back, unless it was told when."""
STAY = (0.5, 3.0)
"""Seconds for which a restless subscriber stays."""


class Subscriber(ABC):
    """Follows some channels until it is cancelled."""

    def __init__(self, name: str, url: str, channels: Sequence[str], *, from_start: bool) -> None:
        self.diary = Diary(name, list(channels), from_start=from_start)
        self.url = url

    @abstractmethod
    async def follow(self) -> None:
        """Subscribe, and come back from wherever it was each time that the connection ends."""

    def stands_at(self, channel: str) -> Position | None:
        """Return the last position that it was told on a channel."""
        positions = (n.position for n in reversed(self.diary.notes) if n.channel == channel)
        return next(positions, None)


class WithLibrary(Subscriber):
    """Uses the client that the gateway brings along, which knows by itself what it has."""

    def __init__(
        self, name: str, url: str, channels: Sequence[str], *, from_start: bool, sse: bool
    ) -> None:
        super().__init__(name, url, channels, from_start=from_start)
        self._sse = sse

    async def follow(self) -> None:
        events = client.subscribe(
            self.url,
            self.diary.channels,
            after=EARLIEST if self.diary.from_start else None,
            sse=self._sse,
            notice=self._notice,
            backoff=client.Backoff(first=RETURN, longest=1.0),
        )
        async with aclosing(events):
            async for event in events:
                position = Position.parse(event.position)
                self.diary.notes.append(
                    Delivered(time.monotonic(), event.channel, position, event.event["id"])
                )

    def _notice(self, notice: client.Notice) -> None:
        if isinstance(notice, client.Disconnected):
            self.diary.connections += 1
            return
        position = Position.parse(notice.position)
        self.diary.notes.append(
            Subscribed(time.monotonic(), notice.channel, position, position, notice.recovered)
        )


@dataclass(frozen=True)
class _Subscribed:
    channel: str
    position: str
    recovered: bool


@dataclass(frozen=True)
class _Delivered:
    position: str
    event: dict[str, Any]


@dataclass(frozen=True)
class _Stands:
    position: str


@dataclass(frozen=True)
class _Leave:
    seconds: float
    """After which to come back."""


_Told = _Subscribed | _Delivered | _Stands | _Leave


class Raw(Subscriber):
    """Takes everything as it comes and leaves nothing out; its position is the last it was told.

    One that is restless also leaves by itself, again and again.
    """

    def __init__(
        self, name: str, url: str, channels: Sequence[str], *, from_start: bool, restless: bool
    ) -> None:
        super().__init__(name, url, channels, from_start=from_start)
        self._restless = restless
        self._position: Position | None = None

    async def follow(self) -> None:
        while True:
            pause = random.uniform(0, RETURN)
            try:
                async with asyncio.timeout(random.uniform(*STAY) if self._restless else None):
                    pause = await self._stay() or pause
            except (OSError, TimeoutError, WebSocketException, httpx.TransportError):
                pass  # whatever ended it: it comes back
            self.diary.connections += 1
            await asyncio.sleep(pause)

    async def _stay(self) -> float | None:
        """Take in what one connection tells; return when to come back if that was told."""
        async with aclosing(self._connection()) as told:
            async for each in told:
                if isinstance(each, _Leave):
                    return each.seconds
                self._note(each)
        return None

    @abstractmethod
    def _connection(self) -> "AsyncGenerator[_Told]":
        """Yield what one connection tells, until it ends."""

    @property
    def _after(self) -> str | None:
        """Where it wants to go on; None for live."""
        if self._position is None:
            return EARLIEST if self.diary.from_start else None
        return str(self._position)

    def _note(self, told: _Told) -> None:
        now = time.monotonic()
        match told:
            case _Subscribed(channel, position, recovered):
                at = Position.parse(position)
                self.diary.notes.append(Subscribed(now, channel, self._asked, at, recovered))
                self._replies.append(at)
                if len(self._replies) == len(self.diary.channels):
                    self._position = min(self._replies, key=lambda each: each.id)
            case _Delivered(position, event):
                self._position = Position.parse(position)
                self.diary.notes.append(
                    Delivered(now, event["channel"], self._position, event["id"])
                )
            case _Stands(position):
                self._position = Position.parse(position)

    def _begin(self) -> str | None:
        """Note that a connection begins, and return where it is to go on."""
        self._asked = self._position
        self._replies: list[Position] = []
        return self._after


class RawWebSocket(Raw):
    """A program that uses a WebSocket library."""

    async def _connection(self) -> AsyncGenerator[_Told]:
        query = [("channel", channel) for channel in self.diary.channels]
        after = self._begin()
        if after is not None:
            query.append(("after", after))
        address = f"{self.url.replace('http', 'ws', 1)}/ws?{urlencode(query)}"
        async with connect(
            address, open_timeout=SILENCE, close_timeout=0.1, ping_interval=None, proxy=None
        ) as websocket:
            while True:
                async with asyncio.timeout(SILENCE):
                    frame = json.loads(await websocket.recv())
                yield _of_frame(frame)


def _of_frame(frame: dict[str, Any]) -> _Told:
    if "event" in frame:
        return _Delivered(frame["position"], frame["event"])
    if "subscribed" in frame:
        return _Subscribed(**frame["subscribed"])
    if "goodbye" in frame:
        return _Leave(frame["goodbye"]["retry_ms"] / 1000)
    if "error" in frame:
        assert frame["error"]["status"] == 503, frame
        return _Leave(RETURN)
    return _Stands(frame["position"])


class RawEventStream(Raw):
    """A browser's `EventSource`: WHATWG HTML, section 9.2."""

    async def _connection(self) -> AsyncGenerator[_Told]:
        query = [("channel", channel) for channel in self.diary.channels]
        after = self._begin()
        headers = {} if after is None else {"Last-Event-ID": after}
        async with (
            # Certificates would take 30 ms to load, each time that it comes back.
            httpx.AsyncClient(timeout=SILENCE, trust_env=False, verify=False) as http,
            http.stream("GET", f"{self.url}/sse?{urlencode(query)}", headers=headers) as response,
        ):
            if response.status_code != 200:
                assert response.status_code == 503, response
                return
            text = ""
            async for chunk in response.aiter_text():
                *blocks, text = (text + chunk).split("\n\n")
                for block in blocks:
                    for each in _of_block(block):
                        yield each


def _of_block(block: str) -> Iterator[_Told]:
    fields = {}
    for line in block.split("\n"):
        name, _, value = line.partition(":")
        fields[name] = value.removeprefix(" ")
    if "data" not in fields:
        if "id" in fields:
            yield _Stands(fields["id"])
        return
    data = json.loads(fields["data"])
    match fields.get("event", "message"):
        case "message":
            yield _Delivered(fields["id"], data)
        case "subscribed":
            for channel, standing in data["channels"].items():
                yield _Subscribed(channel, standing["position"], standing["recovered"])
        case "goodbye":
            yield _Leave(data["retry_ms"] / 1000)
        case "position":
            yield _Stands(fields["id"])


def crowd(url: str, keys: Sequence[str]) -> list[Subscriber]:
    """Return subscribers of every kind, to one channel and to several, from the start and live."""
    found: list[Subscriber] = []
    for number, key in enumerate(keys):
        mine = f"{ALL}:{key}"
        start, restless = number % 2 == 0, number % 3 != 0
        for name, kind in (("websocket", RawWebSocket), ("event stream", RawEventStream)):
            found += [
                kind(f"{name} {number}", url, [ALL], from_start=start, restless=restless),
                kind(
                    *(f"{name} {number} of two", url, [mine, BRIEF]),
                    from_start=False,
                    restless=not restless,
                ),
            ]
        found.append(
            WithLibrary(f"library {number}", url, [ALL, mine], from_start=start, sse=not start)
        )
    return found
