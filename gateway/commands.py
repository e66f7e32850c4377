"""Commands: instructions that someone sent, to be accepted (202) or refused; they may fail."""

from enum import StrEnum
from typing import Any, Generic, TypeVar

import msgspec

T = TypeVar("T")


class Status(StrEnum):
    """Where a command is in its life. The last three are final."""

    ACCEPTED = "accepted"
    STARTED = "started"
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    DEAD_LETTERED = "dead-lettered"


FINAL = frozenset({Status.SUCCEEDED, Status.FAILED, Status.DEAD_LETTERED})


class Envelope(msgspec.Struct, omit_defaults=True):
    """A command on its way: the CloudEvent that its stream entry holds, from the first hop on.

    `data` stays the sender's own bytes until the handler's payload type decodes them.
    """

    id: str
    type: str
    source: str
    time: str
    specversion: str = "1.0"
    datacontenttype: str | None = None
    subject: str | None = None
    partitionkey: str | None = None
    correlationid: str | None = None
    causationid: str | None = None
    traceparent: str | None = None
    tracestate: str | None = None
    authtype: str | None = None
    authid: str | None = None
    data: msgspec.Raw = msgspec.Raw(b"null")


class Command(msgspec.Struct, Generic[T], frozen=True):
    """What a handler is given.

    `id` is stable over all attempts, so it can serve as the key of an effect that must happen once.
    `attempt` counts from 1.
    """

    id: str
    type: str
    data: T
    key: str | None = None
    subject: str | None = None
    source: str = ""
    time: str = ""
    attempt: int = 1
    correlationid: str | None = None
    causationid: str | None = None
    traceparent: str | None = None
    authtype: str | None = None
    authid: str | None = None


class CommandStatus(msgspec.Struct, omit_defaults=True, kw_only=True):
    """The status resource, `GET /commands/{id}`."""

    id: str
    type: str
    status: Status
    attempts: int
    accepted_at: str
    finished_at: str | None = None
    result: Any = None
    error: str | None = None


def channel_of(command_id: str) -> str:
    """The channel on which one command's life is pushed."""
    return f"commands:{command_id}"
