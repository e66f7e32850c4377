"""Dead letters: commands given up on, with all that is needed to see why and to send them again."""

import base64
import traceback
from enum import StrEnum

import msgspec

from gateway.broker.streams import Delivery
from gateway.commands import Envelope

MAX_MESSAGE = 1000
"""Characters of an error's message. It also goes to whoever may see the command's status."""

MAX_TRACEBACK = 8000
"""Characters of a traceback: its end, where the error is."""


class Reason(StrEnum):
    """Why a command was given up on."""

    ATTEMPTS = "attempts-used-up"
    """The last attempt that it was allowed failed as well."""
    CRASH = "worker-died"
    """The worker of its last attempt died before that was settled."""
    DATA = "bad-data"
    """Its data is not what the handler's annotation says."""
    ANSWER = "bad-answer"
    """What the handler returned cannot be encoded, or goes to no channel."""
    HANDLER = "no-handler"
    """The worker that read its stream has no handler of its type."""
    ENVELOPE = "bad-envelope"
    """Its entry is not a command at all."""


class Error(msgspec.Struct, frozen=True):
    """What was raised."""

    type: str
    message: str
    traceback: str = ""

    def __str__(self) -> str:
        return f"{self.type}: {self.message}" if self.message else self.type


class DeadLetter(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the entry of a dead letter holds, as JSON."""

    id: str
    type: str
    stream: str
    partition: int
    reason: Reason
    error: Error
    attempts: int
    accepted_at: str
    dead_lettered_at: str
    envelope: msgspec.Raw = msgspec.Raw(b"null")
    """The original bytes of the command's entry, where they are JSON ..."""
    envelope_base64: str | None = None
    """... and where they are not."""


def error_of(error: BaseException) -> Error:
    """Describe an exception, within bounds."""
    return Error(
        type(error).__name__,
        str(error)[:MAX_MESSAGE],
        "".join(traceback.format_exception(error))[-MAX_TRACEBACK:],
    )


def dead_letter(
    delivery: Delivery, envelope: Envelope, *, reason: Reason, error: Error, attempts: int, at: str
) -> bytes:
    """Return the dead letter of a command, encoded."""
    letter = DeadLetter(
        id=envelope.id,
        type=envelope.type,
        stream=delivery.stream,
        partition=delivery.partition,
        reason=reason,
        error=error,
        attempts=attempts,
        accepted_at=envelope.time,
        dead_lettered_at=at,
    )
    if _is_json(delivery.envelope):
        letter = msgspec.structs.replace(letter, envelope=msgspec.Raw(delivery.envelope))
    else:
        original = base64.b64encode(delivery.envelope).decode()
        letter = msgspec.structs.replace(letter, envelope_base64=original)
    return msgspec.json.encode(letter)


def _is_json(text: bytes) -> bool:
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True
