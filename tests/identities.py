"""People with tokens, for tests that are not about how a token is known to be right."""

import time
from typing import Any

from gateway.config import AuthConfig
from gateway.errors import Unauthorized
from gateway.principals import AuthType, Principal

ISSUER = "https://idp.example"
ADDRESS = "192.0.2.7"
"""Where people are, for tests that are not about that."""


class Secured(AuthConfig, frozen=True, kw_only=True):
    """`[auth]` of a gateway with a way to tell one from another."""

    @property
    def configured(self) -> bool:
        return True


class Register:
    """A source of principals: knows the tokens that it issued itself."""

    def __init__(self) -> None:
        self._issued: dict[str, Principal] = {}

    def issue(self, id: str, *, lasts: float | None = None, **more: Any) -> str:
        """Return a new token of somebody, which holds for so many seconds."""
        token = f"t-{len(self._issued) + 1}.{id}"
        self._issued[token] = Principal(
            id=id,
            type=AuthType.USER,
            issuer=ISSUER,
            token_id=f"jti-{len(self._issued) + 1}",
            expires=None if lasts is None else time.time() + lasts,
            **more,
        )
        return token

    def of(self, token: str) -> Principal:
        return self._issued[token]

    async def run(self) -> None:
        pass

    async def principal(self, token: str, address: str) -> Principal | None:
        found = self._issued.get(token)
        if found is not None and found.expires is not None and found.expires <= time.time():
            raise Unauthorized("the token has expired")
        return found
