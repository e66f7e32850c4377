"""What every request to a gateway has in common: addresses, credentials, and how it says no."""

import os
import socket
import ssl
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit, urlunsplit

import msgspec


class ProblemDocument(msgspec.Struct):
    """A problem document (RFC 9457), as far as it fits in a line."""

    title: str = ""
    detail: str = ""
    code: str = ""

    @classmethod
    def read(cls, body: bytes) -> "ProblemDocument":
        """Read the body of a refusal. What is no problem document is a problem without words."""
        try:
            return msgspec.json.decode(body, type=cls)
        except msgspec.DecodeError:
            return cls()

    def __str__(self) -> str:
        return ": ".join(part for part in (self.title, self.detail) if part)


def endpoint(url: str, path: str, *, schemes: tuple[str, str] = ("http", "https")) -> str:
    """The address of one of the gateway's endpoints, in the plain or the secure one of `schemes`.

    Raises:
        ValueError: if `url` is no http, https, ws or wss URL.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https", "ws", "wss") or not parts.hostname:
        raise ValueError(f"expected a URL like http://127.0.0.1:8080 but got {url!r}")
    scheme = schemes[parts.scheme in ("https", "wss")]
    return urlunsplit((scheme, parts.netloc, parts.path.rstrip("/") + path, "", ""))


def credentials(token: str | None) -> dict[str, str]:
    """The header that shows a bearer token, if there is one."""
    return {} if token is None else {"Authorization": f"Bearer {token}"}


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds in `Retry-After`, or None. Its other form, a date, is not what gateways send."""
    value = headers.get("Retry-After", "")
    return float(value) if value.isascii() and value.isdigit() else None


def cannot_connect(address: str, error: BaseException) -> str:
    """A sentence for a connection that did not come about."""
    return f"cannot connect to {urlsplit(address).netloc}: {_reason(error)}"


def is_untrusted(error: BaseException) -> bool:
    """Whether it did not because of the other side's certificate: that does not pass by itself."""
    return any(isinstance(cause, ssl.SSLCertVerificationError) for cause in _causes(error))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """A chain of wrapped errors, from its top to its bottom."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, BaseExceptionGroup):  # one for each address of the host
            cause = cause.exceptions[0]
        yield cause
        cause = cause.__cause__ or cause.__context__


def _reason(error: BaseException) -> str:
    """What the operating system or TLS said, at the bottom of a chain of wrapped errors."""
    said = str(error) or type(error).__name__
    for cause in _causes(error):
        if isinstance(cause, TimeoutError):
            said = "it took too long"
        elif isinstance(cause, ssl.SSLCertVerificationError):
            said = cause.verify_message
        elif isinstance(cause, OSError) and cause.errno:
            said = _plain(cause)
    return said


def _plain(error: OSError) -> str:
    """The error without the call and the address that asyncio puts around it."""
    if isinstance(error, socket.gaierror):
        return (error.strerror or "the name is not known").lower()
    return os.strerror(error.errno or 0).lower()
