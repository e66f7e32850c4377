"""What the gateway says, over either transport, as a few plain structures. No I/O.

Frames, fields and events that are not known are passed over: a newer gateway may say more.
"""

import random
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgspec

RETURN_CODES = range(4000, 4500)
"""Close codes that mean: come back with your position."""

REFUSAL_CODES = range(4500, 5000)
"""Close codes that mean: do not come back, it would be the same again."""

UNAUTHORIZED = 4501

SPREAD = 1.5
"""Times what was asked for, at most, that we stay away."""

ABNORMAL = 1006
"""No close frame came at all (RFC 6455, section 7.1.5)."""


@dataclass(frozen=True)
class Received:
    """An event that arrived on a channel, with the position to go on with after it."""

    encoded: bytes
    """The CloudEvent, as the gateway wrote it."""
    position: str

    @cached_property
    def event(self) -> dict[str, Any]:
        """The CloudEvent: its attributes and its `data`."""
        decoded: dict[str, Any] = msgspec.json.decode(self.encoded)
        return decoded

    @property
    def channel(self) -> str:
        return str(self.event.get("channel", ""))

    @property
    def type(self) -> str:
        return str(self.event.get("type", ""))

    @property
    def data(self) -> Any:
        return self.event.get("data")


@dataclass(frozen=True, slots=True)
class Subscribed:
    """A channel is subscribed. Not `recovered`: events after the position asked for are gone."""

    channel: str
    position: str
    recovered: bool


@dataclass(frozen=True, slots=True)
class Standing:
    """Nothing new, but this is where every subscribed channel of the connection stands now."""

    position: str


@dataclass(frozen=True, slots=True)
class Goodbye:
    """The gateway is about to close the connection, and says when to come back."""

    code: int
    retry_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Authenticated:
    """The gateway knows who we are, for so many seconds; None: for ever."""

    expires_in: float | None = None


Said = Received | Subscribed | Standing | Authenticated | Goodbye


class Refused(Exception):
    """The gateway said no, and would say no again. `str(refused)` is a sentence."""


class NotKnown(Refused):
    """The gateway does not take our credentials. It may take others."""


class Interrupted(Exception):
    """The connection is over, for a reason that may pass. Come back with your positions."""

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after
        """Seconds after which the gateway wants to see us again, if it said."""


class _Error(msgspec.Struct):
    code: str = "unknown"
    status: int = 500
    detail: str = ""
    retry_after_ms: float | None = None

    def refusal(self) -> Refused | Interrupted:
        """Return what it means to whoever was refused."""
        delay = None if self.retry_after_ms is None else self.retry_after_ms / 1000
        return refusal(self.status, self.detail, self.code, retry_after=delay)


class _Reply(msgspec.Struct):
    channel: str
    position: str
    recovered: bool


class _Goodbye(msgspec.Struct):
    code: int = 4000
    retry_ms: int | None = None


class _Authenticated(msgspec.Struct):
    expires_in_ms: float | None = None


class _Unsubscribed(msgspec.Struct):
    error: _Error | None = None


REFRESH = "refresh"
"""The id of our frames that ask to stay for longer. Where that fails, the connection ends later."""


class _Frame(msgspec.Struct):
    id: int | str | None = None
    authenticated: _Authenticated | None = None
    refreshed: _Authenticated | None = None
    unsubscribed: _Unsubscribed | None = None
    subscribed: _Reply | None = None
    event: msgspec.Raw = msgspec.Raw()
    position: str | None = None
    goodbye: _Goodbye | None = None
    error: _Error | None = None


_decode_frame = msgspec.json.Decoder(_Frame).decode


def read_frame(text: str | bytes) -> Said | None:
    """Return what a WebSocket frame says, or None if it says nothing that concerns a reader.

    Raises:
        Refused: if the frame is an error that would come again, or cannot be understood.
        Interrupted: if it is an error that may pass.
    """
    try:
        frame = _decode_frame(text)
    except msgspec.DecodeError as error:
        raise Refused(f"the gateway sent a frame that cannot be read: {error}") from error
    if frame.event and frame.position is not None:
        return _received(bytes(frame.event), frame.position)
    if frame.subscribed is not None:
        reply = frame.subscribed
        return Subscribed(reply.channel, reply.position, reply.recovered)
    if frame.position is not None:
        return Standing(frame.position)
    if frame.goodbye is not None:
        return Goodbye(frame.goodbye.code, frame.goodbye.retry_ms)
    if known := frame.authenticated or frame.refreshed:
        left = known.expires_in_ms
        return Authenticated(None if left is None else left / 1000)
    if frame.unsubscribed is not None and frame.unsubscribed.error is not None:
        raise frame.unsubscribed.error.refusal()
    if frame.error is not None and frame.id != REFRESH:
        raise frame.error.refusal()
    return None


def refusal(
    status: int, detail: str, code: str = "", *, retry_after: float | None = None
) -> Refused | Interrupted:
    """An error of the gateway by its HTTP status: one that may pass, or one that will not.

    `retry_after` (seconds) is the same for all who were refused, who should not come back together.
    """
    sentence = f"{detail or 'no reason given'} ({code or status})"
    if status >= 500 or status in (408, 429):
        delay = None if retry_after is None else random.uniform(1, SPREAD) * retry_after
        return Interrupted(sentence, delay)
    return NotKnown(sentence) if status == 401 else Refused(sentence)


def closed(code: int | None, reason: str, goodbye: Goodbye | None) -> Refused | Interrupted:
    """What the end of a WebSocket means: its close code, its reason, and the goodbye before it."""
    what = "the connection was lost" if code in (None, ABNORMAL) else f"closed with {code}"
    sentence = f"{what}: {reason}" if reason else what
    if code is not None and code in REFUSAL_CODES:
        return NotKnown(sentence) if code == UNAUTHORIZED else Refused(sentence)
    retry_ms = goodbye.retry_ms if goodbye else None
    return Interrupted(sentence, None if retry_ms is None else retry_ms / 1000)


def _received(encoded: bytes, position: str) -> Received:
    try:
        received = Received(encoded, position)
        if isinstance(received.event, dict):
            return received
    except msgspec.DecodeError:
        pass
    raise Refused(f"the gateway sent an event that cannot be read: {encoded[:80]!r}")


class _Channels(msgspec.Struct):
    class Channel(msgspec.Struct):
        recovered: bool
        position: str

    channels: dict[str, Channel]


def read_event(name: str, data: str, last_event_id: str) -> list[Said]:
    """Return what one dispatched block of an event stream says.

    Its id covers every channel of the stream. A block without data only moves that id.

    Raises:
        Refused: if a block that should be known cannot be read, or it says not to come back.
    """
    said: list[Said] = []
    try:
        if name == "subscribed":
            reply = msgspec.json.decode(data, type=_Channels)
            said += [Subscribed(c, at.position, at.recovered) for c, at in reply.channels.items()]
        elif name == "goodbye":
            goodbye = msgspec.json.decode(data, type=_Goodbye)
            said.append(Goodbye(goodbye.code, goodbye.retry_ms))
        elif name == "message" and data:
            said.append(_received(data.encode(), last_event_id))
    except msgspec.DecodeError as error:
        raise Refused(f"the gateway sent an event that cannot be read: {error}") from error
    if last_event_id:
        said.append(Standing(last_event_id))
    return said
