"""What goes over the wire, without any I/O: WebSocket frames, SSE blocks, and our JSON in them."""

import time
from collections.abc import Mapping
from typing import Any

import msgspec
from websockets.frames import Close, Frame, Opcode

from gateway.errors import BadFrame, CloseCode, GatewayError
from gateway.hub.subscription import AT_ONCE, Pace, Standing
from gateway.principals import Principal

PING = b"\x89\x00"
"""A whole WebSocket ping frame, RFC 6455 section 5.5.2."""

_encode = msgspec.json.Encoder().encode


# What a WebSocket client may say


class Subscribe(msgspec.Struct, forbid_unknown_fields=True):
    channel: str
    after: str | None = None
    max_rate: float | None = None
    conflate: bool | None = None


class Unsubscribe(msgspec.Struct, forbid_unknown_fields=True):
    channel: str


class SendCommand(msgspec.Struct, forbid_unknown_fields=True):
    path: str
    data: msgspec.Raw = msgspec.Raw(b"{}")
    idempotency_key: str | None = None


class Introduce(msgspec.Struct, forbid_unknown_fields=True):
    """Who is at the other end: exactly one of them."""

    token: str | None = None
    ticket: str | None = None


class ClientFrame(msgspec.Struct, forbid_unknown_fields=True):
    """One request; exactly one of what follows the id."""

    id: int | str | None = None
    authenticate: Introduce | None = None
    refresh: Introduce | None = None
    subscribe: Subscribe | None = None
    unsubscribe: Unsubscribe | None = None
    command: SendCommand | None = None


_decode = msgspec.json.Decoder(ClientFrame).decode
_NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding raises; the last for JSON that is nested too deeply."""
_REQUESTS = ("subscribe", "unsubscribe", "command", "authenticate", "refresh")
_EXPECTED = 'expected {{"id": …, {}: {{…}}}}'.format(" or ".join(f'"{each}"' for each in _REQUESTS))


def parse(text: bytes) -> ClientFrame:
    """Read a frame of a client.

    Raises:
        BadFrame: `extra["id"]` is the frame's, if it has one; `extra["fatal"]` tells what is no
            JSON object at all, after which the connection cannot go on.
    """
    try:
        frame = _decode(text)
    except _NOT_JSON as error:
        identity, fatal = _salvage(text)
        raise BadFrame(f"{_EXPECTED}; {error}", id=identity, fatal=fatal) from error
    if sum(getattr(frame, name) is not None for name in _REQUESTS) != 1:
        raise BadFrame(f"{_EXPECTED}, exactly one of them", id=frame.id, fatal=False)
    return frame


def _salvage(text: bytes) -> tuple[int | str | None, bool]:
    """Return the id of a frame that is wrong otherwise, and whether it is no JSON object at all."""
    try:
        document = msgspec.json.decode(text)
    except _NOT_JSON:
        return None, True
    if not isinstance(document, dict):
        return None, True
    identity = document.get("id")
    return (identity if isinstance(identity, int | str) else None), False


# What the gateway says to a WebSocket client


def subscribed(
    identity: int | str | None, standings: Mapping[str, Standing], paces: Mapping[str, Pace]
) -> list[bytes]:
    """Return the answers to a subscription, one for each channel."""
    return [
        _answer(
            identity, "subscribed", {"channel": channel} | _told(each, paces.get(channel, AT_ONCE))
        )
        for channel, each in standings.items()
    ]


def _told(standing: Standing, pace: Pace) -> dict[str, Any]:
    """What a subscriber is told of one channel. Its pace only if it does not hear all at once."""
    told: dict[str, Any] = {"position": standing.position, "recovered": standing.recovered}
    if pace.interval:
        told["max_rate"] = round(1 / pace.interval, 3)
    if pace.conflate:
        told["conflate"] = True
    return told


def unsubscribed(identity: int | str | None, channel: str) -> bytes:
    return _answer(identity, "unsubscribed", {"channel": channel})


def withdrawn(channel: str, error: GatewayError) -> bytes:
    """Return what tells of a subscription that was ended because it is not allowed any more."""
    said = {"code": error.code, "status": error.status, "detail": error.detail}
    return _answer(None, "unsubscribed", {"channel": channel, "error": said})


def authenticated(identity: int | str | None, name: str, principal: Principal) -> bytes:
    """Return the answer to `authenticate` or `refresh`: who it is, and for how long."""
    who = {"id": principal.id, "type": str(principal.type)}
    content: dict[str, Any] = {"principal": who}
    if principal.expires is not None:
        content["expires_in_ms"] = max(0, int((principal.expires - time.time()) * 1000))
    return _answer(identity, name, content)


def accepted(identity: int | str | None, command_id: str) -> bytes:
    return _answer(identity, "accepted", {"id": command_id})


def refused(identity: int | str | None, error: GatewayError) -> bytes:
    extra = {name: value for name, value in error.extra.items() if name not in ("id", "fatal")}
    if error.retry_after_s is not None:
        extra.setdefault("retry_after_ms", error.retry_after_s * 1000)
    return _encode(
        {
            "id": identity,
            "error": {"code": error.code, "status": error.status, "detail": error.detail, **extra},
        }
    )


def goodbye(code: int, retry_ms: int) -> bytes:
    return _encode({"goodbye": {"code": int(code), "retry_ms": retry_ms}})


def _answer(identity: int | str | None, name: str, content: dict[str, Any]) -> bytes:
    return _encode({name: content} if identity is None else {"id": identity, name: content})


# RFC 6455


def text(payload: bytes) -> bytes:
    """Return a whole, unmasked text frame. RFC 6455 section 5.2."""
    size = len(payload)
    if size < 126:
        return b"\x81%c%b" % (size, payload)
    if size < 65536:
        return b"\x81\x7e%b%b" % (size.to_bytes(2, "big"), payload)
    return b"\x81\x7f%b%b" % (size.to_bytes(8, "big"), payload)


def close(code: int, reason: str = "") -> bytes:
    """Return a whole, unmasked close frame. RFC 6455 section 5.5.1."""
    return Frame(Opcode.CLOSE, Close(code, reason).serialize()).serialize(mask=False)


REASONS = {
    CloseCode.SHUTDOWN: "shutdown",
    CloseCode.SLOW_CONSUMER: "slow consumer",
    CloseCode.POSITION_LOST: "position lost",
    CloseCode.TOKEN_EXPIRED: "token expired",
    CloseCode.BAD_FRAME: "bad frame",
    CloseCode.UNAUTHORIZED: "unauthorized",
    CloseCode.FORBIDDEN: "forbidden",
    CloseCode.TOO_MANY: "too many",
}


# WHATWG HTML, section 9.2: server-sent events


def block(data: bytes, *, event: str = "", id: bytes = b"", retry_ms: int | None = None) -> bytes:
    """Return one SSE block. `data` is JSON on one line; nothing in a block may break a line."""
    return b"%b%b%bdata: %b\n\n" % (
        b"retry: %d\n" % retry_ms if retry_ms is not None else b"",
        b"event: %b\n" % event.encode() if event else b"",
        b"id: %b\n" % id if id else b"",
        data,
    )


def sse_subscribed(standings: Mapping[str, Standing], paces: Mapping[str, Pace]) -> bytes:
    """Return the named event that tells where the stream begins, and where a channel has a gap.

    Its `id` is the oldest of the channels' positions: who comes back with it misses nothing.
    """
    document = {
        "channels": {
            channel: _told(each, paces.get(channel, AT_ONCE)) for channel, each in standings.items()
        }
    }
    oldest = min((each.position for each in standings.values()), key=_order)
    return block(_encode(document), event="subscribed", id=oldest.encode())


def sse_goodbye(code: int, retry_ms: int) -> bytes:
    document = _encode({"code": int(code), "retry_ms": retry_ms})
    return block(document, event="goodbye", retry_ms=retry_ms)


def _order(position: str) -> tuple[int, int]:
    _, ms, seq = position.split("-")
    return int(ms), int(seq)


def chunk(data: bytes) -> bytes:
    """Return one chunk of an HTTP/1.1 body. RFC 9112 section 7.1."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK = b"0\r\n\r\n"


# Encodings: how the hub's events look on each kind of wire


class WebSocketFrames:
    """Whole frames, to be written to a socket."""

    def event(self, position: bytes, event: bytes) -> bytes:
        return text(b'{"event":%b,"position":"%b"}' % (event, position))

    def heartbeat(self, position: bytes | None) -> bytes:
        return PING if position is None else PING + text(b'{"position":"%b"}' % position)


class WebSocketLines:
    """Payloads of text frames, each with a line break behind it, which JSON never holds."""

    def event(self, position: bytes, event: bytes) -> bytes:
        return b'{"event":%b,"position":"%b"}\n' % (event, position)

    def heartbeat(self, position: bytes | None) -> bytes:
        return b"" if position is None else b'{"position":"%b"}\n' % position


class EventStreamBlocks:
    """SSE blocks."""

    def event(self, position: bytes, event: bytes) -> bytes:
        return b"id: %b\ndata: %b\n\n" % (position, event)

    def heartbeat(self, position: bytes | None) -> bytes:
        if position is None:
            return b": heartbeat\n\n"
        # Not only a comment, which an EventSource does not show: a named event can be heard, so
        # that silence can be told from a dead connection, and it moves Last-Event-ID.
        return b": heartbeat\nevent: position\nid: %b\ndata: {}\n\n" % position


class EventStreamChunks(EventStreamBlocks):
    """SSE blocks, each in a chunk of an HTTP/1.1 body."""

    def event(self, position: bytes, event: bytes) -> bytes:
        return chunk(super().event(position, event))

    def heartbeat(self, position: bytes | None) -> bytes:
        return chunk(super().heartbeat(position))


WEBSOCKET_FRAMES = WebSocketFrames()
WEBSOCKET_LINES = WebSocketLines()
EVENT_STREAM_BLOCKS = EventStreamBlocks()
EVENT_STREAM_CHUNKS = EventStreamChunks()
