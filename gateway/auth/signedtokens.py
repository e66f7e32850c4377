"""Signed tokens: JWTs of the issuers that are configured."""

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from gateway.auth.memory import Memory, digest
from gateway.auth.watchedfile import WatchedFile
from gateway.authconfig import Algorithm, JWTConfig
from gateway.errors import InvalidToken, TokenFault
from gateway.policy import tokens
from gateway.policy.authentication import algorithms_of
from gateway.policy.keysets import Key, KeySet
from gateway.policy.tokens import Expected, Unverified
from gateway.principals import Principal

BELIEVED = 300.0
"""Seconds after which the signature of a token is looked at again, whoever shows it how often."""


class Keys(Protocol):
    """Where the keys of an issuer come from."""

    def current(self) -> KeySet:
        """Return the keys: the same object for as long as they are the same.

        Raises:
            IdentityUnavailable: there are none that may still be used.
        """

    async def find(self, kid: str | None, algorithm: Algorithm) -> Key | None:
        """Return the key that a token names. Raises `IdentityUnavailable`."""

    async def run(self) -> None:
        """Keep them up to date until cancelled; or return, if there is nothing to do for it."""


class FixedKeys:
    """One key set for ever: of a secret."""

    def __init__(self, keys: KeySet) -> None:
        self._keys = keys

    def current(self) -> KeySet:
        return self._keys

    async def find(self, kid: str | None, algorithm: Algorithm) -> Key | None:
        return self._keys.find(kid, algorithm)

    async def run(self) -> None:
        pass


class FileKeys:
    """The key set of a file, which may change."""

    def __init__(self, file: WatchedFile[KeySet]) -> None:
        self._file = file

    def current(self) -> KeySet:
        return self._file.current()

    async def find(self, kid: str | None, algorithm: Algorithm) -> Key | None:
        return self._file.current().find(kid, algorithm)

    async def run(self) -> None:
        pass


class Issuer:
    """One that signs tokens, and what is expected of them."""

    def __init__(self, config: JWTConfig, keys: Keys) -> None:
        self.name = config.issuer
        self.keys = keys
        self._algorithms = algorithms_of(config)
        self._types = config.types
        self._expected = Expected(
            issuer=config.issuer,
            audience=config.audience,
            id=config.id,
            roles=config.roles,
            leeway=config.leeway,
        )

    async def verify(
        self, token: str, unverified: Unverified, *, now: float
    ) -> tuple[Principal, Key]:
        """Return whose token it is, and the key by which it is right.

        Raises:
            InvalidToken: it is not valid.
            IdentityUnavailable: the key that it names cannot be had.
        """
        unverified.check_header(self._types)
        algorithm = unverified.algorithm(self._algorithms)
        key = await self.keys.find(unverified.kid, algorithm)
        if key is None:
            message = f"expected a token that is signed with a key of {self.name}"
            raise InvalidToken(message, TokenFault.UNKNOWN_KEY)
        if not key.verified(token, algorithm):
            raise InvalidToken("the token's signature is wrong", TokenFault.SIGNATURE)
        principal = tokens.judge(
            unverified.claims, self._expected, now=now, token_id=unverified.digest
        )
        return principal, key


@dataclass(frozen=True, slots=True)
class _Verified:
    """A token that was found right, and the key by which it was."""

    principal: Principal
    issuer: Issuer
    key: Key


class SignedTokens:
    """A source of principals: verifies JWTs, and remembers for a while those that were right."""

    def __init__(
        self, issuers: Iterable[Issuer], *, clock: Callable[[], float] = time.time
    ) -> None:
        self._issuers = {issuer.name: issuer for issuer in issuers}
        self._clock = clock
        self._known: Memory[_Verified] = Memory(clock=clock)

    async def principal(self, token: str, address: str) -> Principal | None:
        """Return whose token it is; None if it is no JWT, or of another issuer.

        Raises:
            InvalidToken: it is not valid.
            IdentityUnavailable: the issuer's keys cannot be had.
        """
        key = digest(token)
        known = self._known.get(key)
        if known is not None and known.key in known.issuer.keys.current():
            return known.principal
        unverified = tokens.parse(token)
        issuer = self._issuer(unverified)
        if unverified is None or issuer is None:
            return None
        now = self._clock()
        found, by = await issuer.verify(token, unverified, now=now)
        assert found.expires is not None
        self._known.put(key, _Verified(found, issuer, by), until=min(found.expires, now + BELIEVED))
        return found

    def _issuer(self, unverified: Unverified | None) -> Issuer | None:
        name = unverified.issuer if unverified else None
        return self._issuers.get(name) if isinstance(name, str) else None

    async def run(self) -> None:
        """Keep the keys up to date, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for issuer in self._issuers.values():
                tasks.create_task(issuer.keys.run())
