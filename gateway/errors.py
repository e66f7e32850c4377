"""Every way in which the gateway says no: one tree, one table.

An error has a stable `code` (what programs compare), an HTTP status, a WebSocket close code
(where the error ends a connection) and a title. The `detail` says what was expected and what came.
Edges translate: HTTP to problem details (RFC 9457), WebSocket to an `error` frame or a close.
"""

import math
from collections.abc import Iterable
from enum import IntEnum, StrEnum
from http import HTTPStatus
from typing import Any, ClassVar, NamedTuple

PROBLEM = "application/problem+json"
"""The media type of `GatewayError.document`."""
PROBLEM_TYPE = "urn:push-gateway:problem:"
"""What the `type` of a problem document begins with; its code follows."""


class CloseCode(IntEnum):
    """WebSocket close codes. 4000-4499: come back with your position; 4500-4999: do not."""

    SHUTDOWN = 4000
    SLOW_CONSUMER = 4001
    POSITION_LOST = 4002
    TOKEN_EXPIRED = 4003
    BAD_FRAME = 4500
    UNAUTHORIZED = 4501
    FORBIDDEN = 4502
    TOO_MANY = 4503


class GatewayError(Exception):
    """The root of all refusals. `str(error)` is the detail: one sentence for who asked."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "The gateway failed"
    retry_after_s: int | None = None
    """When to try again, where that makes sense."""

    def __init__(self, detail: str, **extra: object) -> None:
        super().__init__(detail)
        self.detail = detail
        self.extra = extra
        """Further members of the problem document, such as `errors` of a failed validation."""
        self.headers: dict[str, str] = {}
        """Of an answer over HTTP, beside those that the kind of error has."""

    def document(self) -> dict[str, Any]:
        """Return the problem document, RFC 9457."""
        return _document(self.code, self.title, self.status, self.detail) | self.extra


def problem_of(status: int, detail: str) -> dict[str, Any]:
    """Return the problem document of what HTTP itself has a name for."""
    phrase = HTTPStatus(status).phrase
    return _document(phrase.lower().replace(" ", "-"), phrase, status, detail)


def _document(code: str, title: str, status: int, detail: str) -> dict[str, Any]:
    return {
        "type": PROBLEM_TYPE + code,
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
    }


class BadRequest(GatewayError):
    code, status, title = "bad-request", 400, "The request is malformed"


class BadFrame(BadRequest):
    code, title = "bad-frame", "The frame is malformed"


class Unauthorized(GatewayError):
    code, status, title = "unauthorized", 401, "Credentials are missing or wrong"

    def __init__(self, detail: str, *, missing: bool = False, **extra: object) -> None:
        """`missing`: none were shown, and a WebSocket can still say who it is."""
        super().__init__(detail, **extra)
        self.missing = missing


class TokenFault(StrEnum):
    """What is wrong with a token: for programs that hold it, and for metrics."""

    MALFORMED = "malformed"
    UNKNOWN_ISSUER = "unknown-issuer"
    """It is of nobody who is known here."""
    ALGORITHM = "algorithm"
    UNKNOWN_KEY = "unknown-key"
    SIGNATURE = "signature"
    EXPIRED = "expired"
    NOT_YET_VALID = "not-yet-valid"
    AUDIENCE = "audience"
    """It is meant for somebody else."""
    CLAIMS = "claims"
    """What it says is not what is needed."""
    INACTIVE = "inactive"
    """Whoever gave it out says that it is worth nothing: it was revoked, or made up."""


class InvalidToken(Unauthorized):
    """A token was shown, and is wrong. No part of it is in the detail."""

    code, title = "invalid-token", "The token is not accepted"

    def __init__(self, detail: str, fault: TokenFault) -> None:
        super().__init__(detail, fault=fault)
        self.fault = fault


class IdentityUnavailable(GatewayError):
    """Who vouches for a token cannot be asked: nobody is let in on trust. Try again later."""

    code, status, title = "identity-unavailable", 503, "Who is asking cannot be found out now"
    retry_after_s = 5


class Forbidden(GatewayError):
    code, status, title = "forbidden", 403, "Not allowed"


class OriginNotAllowed(Forbidden):
    code, title = "origin-not-allowed", "Pages of this origin may not ask"


class NotFound(GatewayError):
    code, status, title = "not-found", 404, "There is no such thing here"


class UnknownChannel(NotFound):
    code, title = "unknown-channel", "No configured channel matches this name"


class UnknownCommand(NotFound):
    code, title = "unknown-command", "No command has this path or id"


class UnknownDeadLetter(NotFound):
    code, title = "unknown-dead-letter", "No dead letter has this id"


class UnknownBlock(NotFound):
    code, title = "unknown-block", "There is no such block"


class UnknownConnection(NotFound):
    code, title = "unknown-connection", "No connection has this id"


class TooManyBlocks(GatewayError):
    code, status, title = "too-many-blocks", 409, "There are too many blocks"


class CannotRedrive(GatewayError):
    code, status, title = "cannot-redrive", 409, "This dead letter cannot be sent again"


class RequestTimeout(GatewayError):
    code, status, title = "request-timeout", 408, "The request took too long to come"


class PayloadTooLarge(GatewayError):
    code, status, title = "payload-too-large", 413, "The body is larger than allowed"


class HeadTooLarge(GatewayError):
    code, status, title = "head-too-large", 431, "The head of the request is larger than allowed"


class MisdirectedRequest(GatewayError):
    code, status, title = "misdirected-request", 421, "The request is for another server"


class VersionNotSupported(GatewayError):
    code, status, title = "version-not-supported", 505, "This version of HTTP is not spoken here"


class UnsupportedMediaType(GatewayError):
    code, status, title = "unsupported-media-type", 415, "The body's media type is not supported"


class UpgradeRequired(GatewayError):
    code, status, title = "upgrade-required", 426, "Only WebSocket is spoken here"


class ValidationFailed(GatewayError):
    code, status, title = "validation-failed", 422, "The data does not match its schema"


class KeyReused(GatewayError):
    code, status, title = "key-reused", 422, "The idempotency key was used for something else"


class Unroutable(GatewayError):
    code, status, title = "unroutable", 422, "The routing rules cannot be applied to this data"


class TooManySubscriptions(GatewayError):
    code, status, title = "too-many-subscriptions", 429, "Too many subscriptions on one connection"


class RateLimited(GatewayError):
    """It comes more often than a limit allows. Try again when `retry_after` seconds are over."""

    code, status, title = "rate-limited", 429, "Too many in too short a time"

    def __init__(self, detail: str, *, limit: str, retry_after: float | None) -> None:
        """`retry_after` is None for what no limit will ever let through at once."""
        more = {} if retry_after is None else {"retry_after_ms": math.ceil(retry_after * 1000)}
        super().__init__(detail, limit=limit, **more)
        if retry_after is not None:
            self.retry_after_s = math.ceil(retry_after)


class QuotaExceeded(GatewayError):
    """So much is held already that there can be no more until some of it is given back.

    What a process held that died counts for nine seconds yet: whoever it served comes back then.
    """

    code, status, title = "quota-exceeded", 429, "Too many at a time"
    retry_after_s = 10


class BrokerUnavailable(GatewayError):
    """The log cannot be reached or does not answer; nothing was accepted. Try again later."""

    code, status, title = "broker-unavailable", 503, "The broker is not available"
    retry_after_s = 2


class StreamFull(GatewayError):
    """So many commands wait for a worker already that no more are taken. Try again later."""

    code, status, title = "stream-full", 503, "Too many commands wait already"
    retry_after_s = 2


class Overloaded(GatewayError):
    """More requests wait for the broker than may; nothing was sent to it. Try again later."""

    code, status, title = "overloaded", 503, "Too many requests are under way"
    retry_after_s = 1


class ShuttingDown(GatewayError):
    code, status, title = "shutting-down", 503, "The gateway stops"
    retry_after_s = 2


class StartError(GatewayError):
    """What keeps a process from starting: one clear sentence, then exit code 3."""

    code, title = "cannot-start", "The gateway cannot start"


class Problem(NamedTuple):
    """One mistake in the configuration, and where it is."""

    file: str
    """The file as it was named, or the environment variable."""
    line: int
    """From 1; 0 where there is no line."""
    message: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return f"{where}: {self.message}"


class ConfigError(GatewayError):
    """The configuration is wrong. It carries every problem; exit code 2."""

    code, title = "bad-configuration", "The configuration is wrong"

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))
