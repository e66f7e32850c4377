"""The authenticator: finds out who is asking, by whichever source knows the credential."""

import asyncio
import re
from collections.abc import Mapping, Sequence
from typing import Protocol

from gateway.errors import IdentityUnavailable, InvalidToken, TokenFault, Unauthorized
from gateway.principals import ANONYMOUS, Principal
from gateway.telemetry.metrics import Metrics

MAX_TOKEN = 8192
"""Characters of a token. What is longer is not looked at."""
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
"""What a bearer token is made of, RFC 6750 section 2.1."""


class Source(Protocol):
    """One way to know a credential: issuers of tokens, an introspection endpoint, API keys."""

    async def principal(self, token: str, address: str) -> Principal | None:
        """Return whose credential, shown from an address, it is; None if this source cannot say.

        Raises:
            InvalidToken: it is of this source's kind, and wrong, expired or revoked.
            IdentityUnavailable: it cannot be found out now.
        """

    async def run(self) -> None:
        """Do what the source needs done beside requests, until cancelled; or return at once."""


class Authenticator:
    """Asks the configured sources in turn."""

    def __init__(self, sources: Sequence[Source], metrics: Metrics, *, anonymous: bool) -> None:
        """`anonymous`: let in who shows no credentials."""
        self._sources = tuple(sources)
        self._metrics = metrics
        self._anonymous = anonymous or not sources

    @property
    def configured(self) -> bool:
        """Whether there is any way to tell one from another."""
        return bool(self._sources)

    async def run(self) -> None:
        """Have every source do what it does beside requests, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for source in self._sources:
                tasks.create_task(source.run())

    async def identify(self, headers: Mapping[str, str], address: str) -> Principal:
        """Return who makes a request with these headers from this address.

        Raises:
            Unauthorized: the credentials are wrong; or they are missing, and some are needed.
            IdentityUnavailable: whose they are cannot be found out now.
        """
        token = bearer(headers)
        if token is not None and self._sources:
            return await self.principal(token, address)
        if not self._anonymous:
            text = "expected credentials: Authorization: Bearer and a token"
            raise Unauthorized(text, missing=True)
        return ANONYMOUS

    async def principal(self, token: str, address: str) -> Principal:
        """Return whose token, shown from an address, this is.

        Raises `InvalidToken`, `IdentityUnavailable`.
        """
        try:
            return await self._principal(token, address)
        except InvalidToken as error:
            self._metrics.refused_tokens.labels(error.fault).inc()
            raise
        except IdentityUnavailable:
            self._metrics.refused_tokens.labels("unavailable").inc()
            raise

    async def _principal(self, token: str, address: str) -> Principal:
        if len(token) > MAX_TOKEN:
            message = f"expected a token of at most {MAX_TOKEN} characters"
            raise InvalidToken(message, TokenFault.MALFORMED)
        if not _TOKEN.fullmatch(token):
            raise InvalidToken("expected a bearer token (RFC 6750)", TokenFault.MALFORMED)
        for source in self._sources:
            found = await source.principal(token, address)
            if found is not None:
                return found
        message = "the token is of no issuer that is known here"
        raise InvalidToken(message, TokenFault.UNKNOWN_ISSUER)


def bearer(headers: Mapping[str, str]) -> str | None:
    """Return the token of `Authorization: Bearer`, RFC 6750; None where there is none."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None
