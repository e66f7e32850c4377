"""Credentials: what a request shows of who makes it, apart from `Authorization`.

A browser's WebSocket and EventSource can send no header of a page's choosing. They show a cookie,
which the browser adds by itself, or a ticket in the URL; a WebSocket can also say who it is in its
first frame.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from gateway.errors import BadFrame
from gateway.policy.origins import Origins
from gateway.principals import Transport

_FOREIGN_SITES = ("cross-site", "same-site")


class Kind(StrEnum):
    """What can be shown."""

    TOKEN = "token"
    TICKET = "ticket"


class Credential(NamedTuple):
    """Something that was shown. `repr` keeps it to itself, because that is what logs print."""

    kind: Kind
    value: str

    def __repr__(self) -> str:
        return f"<{self.kind}>"


class Showing:
    """Finds the credentials of a request."""

    def __init__(self, *, cookie: str | None, origins: Origins) -> None:
        """`cookie` is the name of the one whose value is a token, if there is such a one."""
        self._cookie = cookie
        self._origins = origins

    def __call__(
        self, headers: Mapping[str, str], query: Mapping[str, str], transport: Transport
    ) -> Credential | None:
        """Return the ticket or the cookie of a request; what `Authorization` says goes before.

        A ticket opens a connection; no other request may take one, for URLs are written down in
        many places.
        """
        if "authorization" in headers:
            return None
        if transport is not Transport.HTTP and (ticket := query.get("ticket")):
            return Credential(Kind.TICKET, ticket)
        if self._cookie and (token := _cookie(headers, self._cookie)) and self._is_own(headers):
            return Credential(Kind.TOKEN, token)
        return None

    def _is_own(self, headers: Mapping[str, str]) -> bool:
        """Return whether a page that may use the cookie is behind the request, not just any page.

        Browsers name no origin where a page loads something that it cannot read, an image perhaps:
        then they say at least whether the page is another site's.
        """
        origin = headers.get("origin")
        if origin is None and headers.get("sec-fetch-site") in _FOREIGN_SITES:
            return False
        return self._origins.trusts(origin, headers.get("host"))


def _cookie(headers: Mapping[str, str], name: str) -> str:
    """Return the value of a cookie, RFC 6265 section 5.4; empty where there is none."""
    for pair in headers.get("cookie", "").split(";"):
        key, _, value = pair.partition("=")
        if key.strip() == name:
            return value.strip().strip('"')
    return ""


def framed(token: str | None, ticket: str | None) -> Credential:
    """Return what a frame shows. Raises `BadFrame`."""
    if (token is None) == (ticket is None):
        raise BadFrame('expected either a "token" or a "ticket"')
    if token is None:
        return Credential(Kind.TICKET, ticket or "")
    return Credential(Kind.TOKEN, token)
