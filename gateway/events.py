"""Events: facts, as CloudEvents 1.0.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md
"""

from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec
from ulid import ULID

SPEC_VERSION = "1.0"
JSON = "application/json"
DEFAULT_SOURCE = "/gateway"


def now() -> str:
    """The present moment as CloudEvents want it: RFC 3339 in UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def new_id() -> str:
    """A new id: a ULID, so that ids sort by the time at which they were made."""
    return str(ULID())


class Event(msgspec.Struct, omit_defaults=True):
    """A fact, with the attributes of CloudEvents 1.0.

    A handler gives a `type`, and `data` that JSON can hold; the gateway fills in the rest
    (`id`, `source`, `time`, and by the command that caused it `correlationid`, `causationid`,
    `traceparent` and the auth context). Channels come from the configured feeds, unless `channel`
    names one outright.
    """

    type: str
    data: Any = msgspec.UNSET
    subject: str | None = None
    id: str | None = None
    source: str | None = None
    time: str | None = None
    datacontenttype: str | None = None
    dataschema: str | None = None
    data_base64: str | None = None
    channel: str | None = None
    correlationid: str | None = None
    causationid: str | None = None
    partitionkey: str | None = None
    traceparent: str | None = None
    tracestate: str | None = None
    authtype: str | None = None
    authid: str | None = None
    extensions: dict[str, str | int | bool] = msgspec.field(default_factory=dict)
    """Further CloudEvents extension attributes: lower-case letters and digits."""


_to_json = msgspec.json.Encoder().encode


def encode(event: Event) -> bytes:
    """Return the event in the JSON format of CloudEvents, without its channel.

    The channel is left to `with_channel`, because one event can go to several.

    Raises:
        TypeError: if `data` holds what JSON cannot.
    """
    document: dict[str, Any] = {
        "specversion": SPEC_VERSION,
        "id": event.id or new_id(),
        "source": event.source or DEFAULT_SOURCE,
        "type": event.type,
        "time": event.time or now(),
    }
    for name in _OPTIONAL:
        value = getattr(event, name)
        if value is not None:
            document[name] = value
    document.update(event.extensions)
    if event.data is not msgspec.UNSET:
        document.setdefault("datacontenttype", JSON)
        document["data"] = event.data
    return _to_json(document)


_OPTIONAL = (
    "subject",
    "datacontenttype",
    "dataschema",
    "correlationid",
    "causationid",
    "partitionkey",
    "traceparent",
    "tracestate",
    "authtype",
    "authid",
    "data_base64",
)


def with_channel(encoded: bytes, channel: str) -> bytes:
    """Return an encoded event with its `channel` attribute: one splice, no second encoding."""
    return b'%b,"channel":"%b"}' % (encoded[:-1], channel.encode())


class Retention(NamedTuple):
    """For how long a channel keeps its events."""

    ttl_ms: int
    """0: not at all."""
    since_ms: int = 0
    """Of what is older than this moment some may be gone: it was configured to be kept for less."""


class Publication(NamedTuple):
    """One event on its way into one channel."""

    channel: str
    event: bytes
    """The encoded CloudEvent, with its `channel`."""
    size: int
    """Events that the channel retains; 0 for none."""
    ttl_ms: int
    """How long it retains them."""
    key: str = ""
    """Of the events with one key, only the latest matters to who cannot hear them all."""
