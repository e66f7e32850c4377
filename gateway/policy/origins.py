"""Origins: from which pages scripts in browsers may talk to the gateway. RFC 6454.

Only browsers send `Origin`, and a script cannot forge it. It protects people whose browser holds
credentials for the gateway, from pages that they never meant to show them to; it is no protection
from other programs, which say what they like.
"""

import re
from collections.abc import Iterable

from gateway.config import ServerConfig
from gateway.report import Report

ANY = "*"

_ORIGIN = re.compile(
    r"(https?)://([a-z0-9_.-]{1,253}|\[[0-9a-f:.]{2,45}\])(?::(\d{1,5}))?", re.ASCII
)
_DEFAULT_PORTS = {"http": "80", "https": "443"}


class Origins:
    """Decides for an `Origin` header. The gateway's own origin is always allowed."""

    def __init__(self, allowed: Iterable[str] = (), *, tls: bool = False) -> None:
        """`tls`: this process speaks TLS itself, so that a page over plain HTTP is a stranger."""
        self._any = ANY in (listed := tuple(allowed))
        self._listed = frozenset(normal for each in listed if (normal := normalized(each)))
        self._own_schemes = ("https",) if tls else ("http", "https")

    def trusts(self, origin: str | None, host: str | None) -> bool:
        """Return whether the browser's own credentials, such as cookies, count from there.

        `origin` and `host` are the headers; without an `Origin` no page is behind the request.
        """
        if origin is None:
            return True
        normal = normalized(origin)
        if normal is None:  # "null" among them: a sandboxed frame, a file
            return False
        return normal in self._listed or self._is_own(normal, host or "")

    def allows(self, origin: str | None, host: str | None) -> bool:
        """Return whether a page there may ask and read at all: `"*"` lets every one do that."""
        return self._any or self.trusts(origin, host)

    def _is_own(self, origin: str, host: str) -> bool:
        """Return whether the page came from here. Behind a proxy the scheme is not known."""
        return any(normalized(f"{scheme}://{host}") == origin for scheme in self._own_schemes)


def normalized(origin: str) -> str | None:
    """Return an origin as browsers write it: in lower case, without its scheme's own port.

    None if it is none of `http` or `https`.
    """
    found = _ORIGIN.fullmatch(origin.lower()) if origin.isascii() else None
    if found is None:
        return None
    scheme, host, port = found.groups()
    if port is None or port.lstrip("0") == _DEFAULT_PORTS[scheme]:
        return f"{scheme}://{host}"
    return f"{scheme}://{host}:{int(port)}"


def check_origins(server: ServerConfig, report: Report) -> None:
    """Report what a list of origins cannot be."""
    for index, origin in enumerate(server.origins):
        if origin == ANY and len(server.origins) > 1:
            message = 'expected "*" alone: it allows all the others too'
            report.add(("server", "origins", index), message)
