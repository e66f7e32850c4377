"""The authenticator: finds out who is asking, by whichever source knows the credential."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from gateway.errors import Unauthorized
from gateway.principals import ANONYMOUS, Principal


class Source(Protocol):
    """One way to know a credential: an issuer of tokens, an introspection endpoint, API keys."""

    async def principal(self, token: str) -> Principal | None:
        """Return whose credential it is; None if it is not for this source to say.

        Raises:
            Unauthorized: it is of this source's kind, and wrong, expired or revoked.
        """


class Authenticator:
    """Asks the configured sources in turn."""

    def __init__(self, sources: Sequence[Source], *, anonymous: bool) -> None:
        """`anonymous`: let in who shows no credentials."""
        self._sources = tuple(sources)
        self._anonymous = anonymous or not sources

    @property
    def configured(self) -> bool:
        """Whether there is any way to tell one from another."""
        return bool(self._sources)

    async def identify(self, headers: Mapping[str, str], query: Mapping[str, str]) -> Principal:
        """Return who makes a request with these headers and this query.

        Raises:
            Unauthorized: the credentials are wrong; or they are missing, and some are needed.
        """
        token = bearer(headers)
        if token is not None and self._sources:
            return await self.principal(token)
        if not self._anonymous:
            text = "expected credentials: Authorization: Bearer and a token"
            raise Unauthorized(text, missing=True)
        return ANONYMOUS

    async def principal(self, token: str) -> Principal:
        """Return whose token this is. Raises `Unauthorized`."""
        for source in self._sources:
            found = await source.principal(token)
            if found is not None:
                return found
        raise Unauthorized("the token is of no issuer that is known here")


def bearer(headers: Mapping[str, str]) -> str | None:
    """Return the token of `Authorization: Bearer`, RFC 6750; None where there is none."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None
