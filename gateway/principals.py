"""Principals: who is asking, and from where.

What expressions, handlers and events learn of them are the words of CloudEvents' auth context:
https://github.com/cloudevents/spec/blob/main/cloudevents/extensions/authcontext.md
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import msgspec


class AuthType(StrEnum):
    """What kind of principal it is."""

    USER = "user"
    SERVICE_ACCOUNT = "service_account"
    API_KEY = "api_key"
    SYSTEM = "system"
    UNAUTHENTICATED = "unauthenticated"


class Transport(StrEnum):
    """Through which door somebody came."""

    HTTP = "http"
    SSE = "sse"
    WEBSOCKET = "websocket"


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody whose credentials were found to be right, or who has shown none."""

    id: str
    type: AuthType
    issuer: str = ""
    """Who vouches for the id; two issuers may have given the same."""
    roles: tuple[str, ...] = ()
    claims: Mapping[str, Any] = msgspec.field(default_factory=dict)
    """All that the issuer says of it."""
    token_id: str = ""
    """What the credential is called, so that it can be revoked by itself; empty for none."""
    expires: float | None = None
    """Until when it holds, in seconds since 1970; None: for ever."""

    @property
    def anonymous(self) -> bool:
        return self.type is AuthType.UNAUTHENTICATED

    @property
    def name(self) -> str:
        """What tells it from every other principal; empty for nobody in particular.

        The issuer's colons are escaped: without that, `8443:x` of `https://a` would be `x` of
        `https://a:8443`.
        """
        issuer = self.issuer.replace("%", "%25").replace(":", "%3A")
        return "" if self.anonymous else f"{self.type}:{issuer}:{self.id}"

    def variables(self) -> dict[str, Any]:
        """Return what expressions see of it as `principal`."""
        return {
            "id": self.id,
            "type": str(self.type),
            "issuer": self.issuer,
            "roles": list(self.roles),
            "claims": self.claims,
        }

    def chosen(self, claims: Sequence[str]) -> str | None:
        """Return some of the claims as JSON, as far as they are there; None for none."""
        found = {name: self.claims[name] for name in claims if name in self.claims}
        return msgspec.json.encode(found).decode() if found else None


ANONYMOUS = Principal(id="anonymous", type=AuthType.UNAUTHENTICATED)
UNKNOWN = Principal(id="unknown", type=AuthType.UNAUTHENTICATED)
"""Who has yet to say who it is: nothing is done for it."""


@dataclass(frozen=True, slots=True)
class Caller:
    """A principal, and the request or connection by which it speaks."""

    principal: Principal = ANONYMOUS
    address: str = ""
    """The client's, as far as it is known; behind proxies what those that are trusted say."""
    transport: Transport = Transport.HTTP
    connection: str = ""
    """Which connection it is, among all: its peer's address and port."""
    channels: frozenset[str] | None = None
    """Those to which a ticket narrows it: it may subscribe to these, and do nothing else."""

    def variables(self) -> dict[str, Any]:
        """Return what expressions see as `request`."""
        return {"address": self.address, "transport": str(self.transport)}


ANYBODY = Caller()
