"""Commands: instructions that someone sent, to be accepted (202) or refused; they may fail."""

from enum import StrEnum
from typing import Any, Generic, TypeVar

import msgspec

from gateway.events import SPEC_VERSION, Event, encode, with_channel

T = TypeVar("T")


class Status(StrEnum):
    """Where a command is in its life. The last three are final."""

    ACCEPTED = "accepted"
    STARTED = "started"
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    DEAD_LETTERED = "dead-lettered"


class Priority(StrEnum):
    """Who is refused first when there is too much to do."""

    NORMAL = "normal"
    LOW = "low"


class Durability(StrEnum):
    """What must have happened to a command before its sender is answered."""

    MEMORY = "memory"
    """It is on its way to the broker: lost if this process or the broker dies now."""
    ACKNOWLEDGED = "acknowledged"
    """The broker has it: lost if the broker's machine dies before its next flush to disk."""
    FSYNC = "fsync"
    """The broker has it on its disk."""


FINAL = frozenset({Status.SUCCEEDED, Status.FAILED, Status.DEAD_LETTERED})


class Envelope(msgspec.Struct, omit_defaults=True, tag_field="specversion", tag=SPEC_VERSION):
    """A command on its way: the CloudEvent that its stream entry holds, from the first hop on.

    `data` stays the sender's own bytes until the handler's payload type decodes them.
    """

    id: str
    type: str
    source: str
    time: str
    datacontenttype: str | None = None
    subject: str | None = None
    partitionkey: str | None = None
    correlationid: str | None = None
    causationid: str | None = None
    traceparent: str | None = None
    tracestate: str | None = None
    authtype: str | None = None
    authid: str | None = None
    authclaims: str | None = None
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
    authclaims: str | None = None
    """JSON: what is known of the sender, as far as the configuration lets it travel."""

    @property
    def claims(self) -> dict[str, Any]:
        """What `authclaims` says."""
        return msgspec.json.decode(self.authclaims, type=dict[str, Any]) if self.authclaims else {}


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


def life_event(status: CommandStatus, envelope: Envelope, *, time: str, **more: Any) -> bytes:
    """Return the event that tells of a change in a command's life, for the command's own channel.

    Its type is `command.<status>`, its data the status resource and `more`.
    """
    event = Event(
        f"command.{status.status}",
        id=f"{status.id}-{status.status}-{status.attempts}",
        source=f"/commands/{status.id}",
        subject=status.id,
        time=time,
        data=msgspec.to_builtins(status) | more,
        correlationid=envelope.correlationid or status.id,
        causationid=status.id,
        traceparent=envelope.traceparent,
    )
    return with_channel(encode(event), channel_of(status.id))


def started_event(envelope: Envelope, *, time: str) -> list[bytes]:
    """Return the event `command.started`, cut in three where it tells the number of the attempt.

    Only the log knows that number, in the step in which it counts the attempt.
    """
    status = CommandStatus(
        id=envelope.id,
        type=envelope.type,
        status=Status.STARTED,
        attempts=0,
        accepted_at=envelope.time,
    )
    # A raw quote only ever ends a JSON string, so no text of a sender looks like these.
    before, _, rest = life_event(status, envelope, time=time).partition(b'-started-0"')
    middle, _, after = rest.partition(b'"attempts":0')
    return [before + b"-started-", b'"' + middle + b'"attempts":', after]


def channel_of(command_id: str) -> str:
    """The channel on which one command's life is pushed."""
    return f"commands:{command_id}"


def is_of_command(channel: str) -> bool:
    """Return whether a channel is a command's own."""
    return channel.startswith("commands:")
