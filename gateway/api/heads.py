"""Heads of requests: read once, and only if everybody else would read them in the same way.

What a server in front and this one understand differently can smuggle a request past the one of
them that checks it (RFC 9112, section 11.2). The parser refuses most of it; this is the rest.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass

from starlette.types import Scope

from gateway.errors import (
    BadRequest,
    HeadTooLarge,
    MisdirectedRequest,
    NotFound,
    VersionNotSupported,
)

MAX_HEAD = 64 << 10
"""Bytes of the names and values of a request's headers."""
MAX_HEADERS = 100
"""A browser sends twenty."""
PROBES = frozenset({"/healthz", "/readyz", "/metrics"})
"""Asked by what runs the gateway, under whatever address it knows."""

_HOST = re.compile(r"([a-z0-9_.-]{1,253}|\[[0-9a-f:.]{2,45}\])(?::[0-9]{1,5})?", re.IGNORECASE)
_SLASH = re.compile(rb"%2f|%5c", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Head:
    """The headers of a request."""

    values: dict[bytes, list[bytes]]

    def first(self, name: str) -> str | None:
        values = self.values.get(name.encode())
        return values[0].decode("latin-1") if values else None

    @property
    def host(self) -> str | None:
        """Of `Host`, with its port."""
        return self.first("host")


def read_head(scope: Scope) -> Head:
    """Return the headers of a request.

    Raises:
        VersionNotSupported: it is not of HTTP/1; servers translate what is newer.
        HeadTooLarge: there are too many of them, or they are too long.
        BadRequest: they are ambiguous about the host, about who asks, or about where the body ends.
        NotFound: the path holds an encoded slash, where no name of a channel can be.
    """
    version = scope["http_version"]
    if version not in ("1.0", "1.1", "2", "3"):
        raise VersionNotSupported(f"expected HTTP/1.1 but got HTTP/{version}")
    headers = scope["headers"]
    if len(headers) > MAX_HEADERS:
        raise HeadTooLarge(f"expected at most {MAX_HEADERS} headers but got {len(headers)}")
    size = 0
    values: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        size += len(name) + len(value)
        values.setdefault(name, []).append(value)
    if size > MAX_HEAD:
        raise HeadTooLarge(f"expected at most {MAX_HEAD} bytes of headers but got {size}")
    _check_framing(values, version)
    _check_path(scope)
    return Head(values)


def _check_framing(values: dict[bytes, list[bytes]], version: str) -> None:
    hosts = values.get(b"host", [])
    if len(hosts) != 1 and not (version == "1.0" and not hosts):
        raise BadRequest(f"expected one Host but got {len(hosts)}")
    if hosts and not _HOST.fullmatch(hosts[0].decode("latin-1")):
        raise BadRequest(f"expected a host and a port as Host but got {hosts[0][:100]!r}")
    if len(values.get(b"authorization", ())) > 1:  # who stands in front may have judged the other
        raise BadRequest("expected one Authorization but got several")
    codings = values.get(b"transfer-encoding")
    if codings and (version == "1.0" or [each.lower() for each in codings] != [b"chunked"]):
        raise BadRequest(f"expected chunked as Transfer-Encoding but got {codings[0][:100]!r}")


def _check_path(scope: Scope) -> None:
    """Who stands in front and forbids `/admin/` would let `/admin%2f` pass."""
    path: bytes = scope.get("raw_path") or b""
    if b"%" in path and _SLASH.search(path) and not path.startswith(b"/channels/"):
        raise NotFound(f"expected a path that is served here but got {scope['path'][:200]!r}")


def check_host(scope: Scope, head: Head, hosts: Collection[str]) -> None:
    """Check that a request is for one of our names, if any are given. Raises `MisdirectedRequest`.

    A page whose own name was made to lead here (DNS rebinding) has the name of its own.
    """
    if not hosts or scope["path"] in PROBES:
        return
    found = _HOST.fullmatch(head.host or "")
    if found is None or found[1].lower() not in hosts:
        raise MisdirectedRequest(f"expected a host of [server] hosts but got {head.host!r:.100}")
