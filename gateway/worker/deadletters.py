"""From a failed attempt to what the log keeps of it, within bounds. Pure."""

import traceback

import msgspec

from gateway.broker.commits import Letter
from gateway.broker.deadletters import DeadLetter, Error, Failure, Reason
from gateway.broker.streams import Delivery
from gateway.commands import Envelope

MAX_MESSAGE = 1000
"""Characters of an error's message."""

MAX_FAILURE = 200
"""Characters of the message of each earlier attempt: there may be a hundred of them."""

MAX_TRACEBACK = 8000
"""Characters of a traceback: its end, where the error is."""


def error_of(error: BaseException) -> Error:
    """Describe an exception, whatever it is: also one that cannot say what it is."""
    try:
        message = str(error)
    except Exception as why:  # noqa: BLE001  the user's code
        message = f"its __str__ raised {type(why).__name__}"
    return Error(
        type(error).__name__,
        _plain(message[:MAX_MESSAGE]),
        _plain("".join(traceback.format_exception(error))[-MAX_TRACEBACK:]),
    )


def public(error: Error, reason: Reason | None = None) -> str:
    """Return what the sender of a command is told of an error.

    Of what somebody's code raised the type alone: its message is for those who run it, and may tell
    of their machines or hold their secrets.
    """
    is_raised = bool(error.traceback) and reason is not Reason.DATA
    return error.type if is_raised else str(error)


def _plain(text: str) -> str:
    """Return a text that JSON can hold: a file name in a message may have lone surrogates."""
    return text.encode(errors="replace").decode()


def failure(error: Error, *, attempt: int, at: str) -> bytes:
    """Return the record of an attempt that failed, encoded."""
    return msgspec.json.encode(Failure(attempt, at, error.type, error.message[:MAX_FAILURE]))


def dead_letter(
    delivery: Delivery, envelope: Envelope, *, reason: Reason, error: Error, attempts: int, at: str
) -> Letter:
    """Return the dead letter of a command."""
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
        key=envelope.partitionkey,
    )
    return Letter(reason, envelope.type, msgspec.json.encode(letter))
