"""One connection to a gateway, from its opening to its end, over WebSocket or SSE.

Each is an async generator of what the gateway says. It never just ends: it raises `Interrupted`
when coming back makes sense and `Refused` when it does not. Closing the generator, or cancelling
whoever waits in it, closes the connection.
"""

import asyncio
import inspect
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from urllib.parse import urlencode

import httpx
import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidMessage,
    InvalidStatus,
    InvalidURI,
)

from gateway.client.eventstream import Parser
from gateway.client.frames import (
    REFRESH,
    Authenticated,
    Goodbye,
    Interrupted,
    Refused,
    Said,
    closed,
    read_event,
    read_frame,
    refusal,
)
from gateway.client.http import (
    ProblemDocument,
    cannot_connect,
    credentials,
    endpoint,
    is_untrusted,
    retry_after,
)
from gateway.client.positions import Positions

OPEN_TIMEOUT = 10.0
"""Seconds in which a connection must come about."""

SILENCE = 75.0
"""Seconds without a byte after which an event stream counts as dead: three default heartbeats."""

CLOSE_TIMEOUT = 1.0
"""Seconds that we wait for the other side's close frame: whoever presses Ctrl-C waits them too."""


LEAD = 30.0
"""Seconds before its end at which a token is exchanged; sooner where it lasts only briefly."""

MIN_RENEWAL = 1.0
"""Seconds between two tokens, at least."""

TokenSource = str | None | Callable[[], str | Awaitable[str]]
"""A bearer token, or what gives a fresh one; None for none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How channels are to be heard."""

    max_rate: float | None = None
    """Deliveries a second, at most."""
    conflate: bool | None = None
    """Only the latest of what waits; None: as the channel is configured."""

    def wish(self) -> dict[str, object]:
        """Return what to ask of the gateway."""
        wish = {"max_rate": self.max_rate, "conflate": self.conflate}
        return {name: value for name, value in wish.items() if value is not None}


AT_ONCE = Pace()


async def fresh(token: TokenSource) -> str | None:
    """Return a token to show now; None for none.

    Raises:
        Interrupted: there is none now.
    """
    if not callable(token):
        return token
    try:
        given = token()
        return await given if inspect.isawaitable(given) else given
    except Exception as error:  # whatever a stranger's function raises: it may work next time
        raise Interrupted(f"no token could be had: {error or type(error).__name__}") from error


async def websocket(
    url: str, positions: Positions, token: TokenSource, pace: Pace = AT_ONCE
) -> AsyncGenerator[Said]:
    """Follow the channels over one WebSocket, each after its own position."""
    address = endpoint(url, "/ws", schemes=("ws", "wss"))
    goodbye: Goodbye | None = None
    connection = await _open_websocket(address, await fresh(token))
    renewal = _Renewal(connection, token)
    try:
        with suppress(ConnectionClosed):  # should it be refused: why, has come before the close
            await _ask(connection, positions, pace)
        async for text in connection:
            said = read_frame(text)
            if isinstance(said, Goodbye):
                goodbye = said
            elif isinstance(said, Authenticated):
                renewal.after(said.expires_in)
            if said is not None:
                yield said
    except ConnectionClosed:
        pass
    finally:
        renewal.stop()
        await connection.close()
    raise closed(connection.close_code, connection.close_reason or "", goodbye)


async def _open_websocket(address: str, token: str | None) -> ClientConnection:
    try:
        return await connect(
            address,
            additional_headers=credentials(token),
            open_timeout=OPEN_TIMEOUT,
            close_timeout=CLOSE_TIMEOUT,
            max_size=None,  # an event may be as large as the gateway lets it be
        )
    except InvalidStatus as error:
        no = error.response
        raise _no(
            address, no.status_code, bytes(no.body or b""), retry_after(no.headers)
        ) from error
    except (OSError, TimeoutError, InvalidMessage) as error:
        raise _unreachable(address, error) from error
    except (InvalidURI, InvalidHandshake) as error:
        raise Refused(f"{address} is no WebSocket: {error}") from error


class _Renewal:
    """Shows a fresh token in time, so that the connection may stay."""

    def __init__(self, connection: ClientConnection, token: TokenSource) -> None:
        self._connection = connection
        self._token = token
        self._task: asyncio.Task[None] | None = None

    def after(self, expires_in: float | None) -> None:
        """Do so before that time (seconds) is over. A token that is always the same stays it."""
        self.stop()
        if expires_in is not None and callable(self._token):
            delay = max(expires_in - min(LEAD, expires_in / 3), MIN_RENEWAL)
            self._task = asyncio.create_task(self._run(delay))

    def stop(self) -> None:
        """Leave it. May be done twice."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self, delay: float) -> None:
        while True:
            await asyncio.sleep(delay)
            # Should there be no token now, there may be one a little later, or after the end.
            with suppress(Interrupted, ConnectionClosed):
                refresh = {"token": await fresh(self._token)}
                frame = msgspec.json.encode({"id": REFRESH, "refresh": refresh})
                await self._connection.send(frame, text=True)
            delay = LEAD / 6


async def _ask(connection: ClientConnection, positions: Positions, pace: Pace) -> None:
    for number, (channel, after) in enumerate(positions.each().items(), 1):
        wanted: dict[str, object] = {"channel": channel, **pace.wish()}
        if after is not None:
            wanted["after"] = after
        frame = msgspec.json.encode({"id": number, "subscribe": wanted})
        await connection.send(frame, text=True)


async def event_stream(
    url: str, positions: Positions, token: TokenSource, pace: Pace = AT_ONCE
) -> AsyncGenerator[Said]:
    """Follow the channels over one event stream, after the oldest of their positions."""
    address = endpoint(url, "/sse")
    wish = [(name, msgspec.json.encode(value).decode()) for name, value in pace.wish().items()]
    query = urlencode([*(("channel", channel) for channel in positions.channels), *wish])
    shown = credentials(await fresh(token))
    headers = {"Accept": "text/event-stream", "Cache-Control": "no-store", **shown}
    if after := positions.oldest():
        headers["Last-Event-ID"] = after
    timeout = httpx.Timeout(OPEN_TIMEOUT, read=SILENCE)
    try:
        async with (
            httpx.AsyncClient(timeout=timeout, follow_redirects=True, verify=_trusted()) as client,
            client.stream("GET", f"{address}?{query}", headers=headers) as response,
        ):
            await _check_event_stream(address, response)
            parser = Parser()
            async for chunk in response.aiter_bytes():
                for block in parser.feed(chunk):
                    for said in read_event(block.name, block.data, block.last_event_id):
                        yield said
                        if isinstance(said, Goodbye):
                            raise closed(said.code, "", said)
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        raise _unreachable(address, error) from error
    except httpx.ReadTimeout as error:
        raise Interrupted(f"nothing was heard for {SILENCE:.0f} seconds") from error
    except httpx.RequestError as error:
        raise Interrupted(f"the connection was lost: {error or type(error).__name__}") from error
    raise Interrupted("the stream ended")


@cache
def _trusted() -> ssl.SSLContext:
    """Whom TLS trusts. Loaded once: it takes 30 ms, which is much for who comes back often."""
    return httpx.create_ssl_context()


async def _check_event_stream(address: str, response: httpx.Response) -> None:
    if response.status_code != 200:
        body = await response.aread()
        raise _no(address, response.status_code, body, retry_after(response.headers))
    media_type = response.headers.get("Content-Type", "").partition(";")[0].strip()
    if media_type != "text/event-stream":
        raise Refused(f"expected an event stream from {address} but got {media_type or 'nothing'}")


def _unreachable(address: str, error: Exception) -> Refused | Interrupted:
    sentence = cannot_connect(address, error)
    return Refused(sentence) if is_untrusted(error) else Interrupted(sentence)


def _no(address: str, status: int, body: bytes, delay: float | None) -> Refused | Interrupted:
    problem = ProblemDocument.read(body)
    sentence = str(problem) or f"{address} answered {status}"
    return refusal(status, sentence, problem.code, retry_after=delay)
