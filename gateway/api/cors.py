"""CORS: which pages of other origins may ask, and read the answers. Fetch standard, section 3.2.

Who sends an `Origin` that is not allowed is refused outright: browsers send some requests without
asking first, and only keep the answer from the page that made them (CSRF).
"""

import re

from starlette.responses import Response

from gateway.errors import OriginNotAllowed
from gateway.policy.origins import Origins

Headers = list[tuple[bytes, bytes]]

METHODS = "DELETE, GET, HEAD, POST"
MAX_AGE = 7200
"""Seconds for which a browser need not ask again; Chromium remembers no longer."""
EXPOSED = ", ".join(
    [
        *("Content-Location", "Gateway-Position", "Gateway-Recovered", "Idempotency-Replayed"),
        *("Location", "Preference-Applied", "RateLimit", "RateLimit-Policy", "Retry-After"),
        "WWW-Authenticate",
    ]
)
"""Headers of answers that scripts may read beside those that they always may."""

_NAMES = re.compile(r"[A-Za-z0-9_-]{1,64}(, ?[A-Za-z0-9_-]{1,64}){0,49}")
_VARY: Headers = [(b"vary", b"Origin")]


class CrossOrigin:
    """Judges requests by their `Origin`."""

    def __init__(self, origins: Origins) -> None:
        self._origins = origins

    def headers(self, origin: str | None, host: str | None) -> Headers:
        """Return what lets the page read the answer. Raises `OriginNotAllowed`."""
        if origin is None:
            return _VARY
        if not self._origins.allows(origin, host):
            raise OriginNotAllowed(
                f"expected an origin of [server] origins, or {host or 'the own one'!r} itself, "
                f"but got {origin[:100]!r}"
            )
        allowed: Headers = [(b"access-control-expose-headers", EXPOSED.encode()), *_VARY]
        if not self._origins.trusts(origin, host):  # then a browser must keep cookies out of it
            return [(b"access-control-allow-origin", b"*"), *allowed]
        return [
            (b"access-control-allow-origin", origin.encode("latin-1")),
            (b"access-control-allow-credentials", b"true"),
            *allowed,
        ]


def preflight(wanted_headers: str) -> Response:
    """Answer a browser that asks before it asks."""
    headers = {"access-control-allow-methods": METHODS, "access-control-max-age": str(MAX_AGE)}
    if _NAMES.fullmatch(wanted_headers):
        headers["access-control-allow-headers"] = wanted_headers
    return Response(status_code=204, headers=headers)
