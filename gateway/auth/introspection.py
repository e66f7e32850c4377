"""Token introspection: the provider is asked what a token is worth, RFC 7662."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote_plus

import httpx

from gateway.auth.memory import SIZE, Memory, digest
from gateway.auth.provider import MAX_CONNECTIONS, Provider, ProviderFailed
from gateway.auth.turns import NoTurn, Turns
from gateway.authconfig import IntrospectionConfig
from gateway.errors import BadRequest, IdentityUnavailable, InvalidToken, TokenFault
from gateway.policy.authentication import client_secret
from gateway.policy.documents import decode
from gateway.policy.tokens import Expected, check_audience, check_times, speaker
from gateway.principals import Principal

logger = logging.getLogger(__name__)

REFUSED = 5.0
"""Seconds for which a no is remembered, at most: a token may become valid."""
MAX_WAITING = 256
"""Tokens that may wait until the provider is asked about them."""

Answer = Principal | InvalidToken


class Introspection:
    """A source of principals: asks about tokens, and remembers the answers for a while.

    Requests with the same token share one question. What is not known while the provider is down is
    let in by nobody. Of the many tokens that one address makes up others notice little: their
    questions take turns with its own, and what is remembered of theirs is not forgotten for it.
    """

    def __init__(
        self,
        config: IntrospectionConfig,
        provider: Provider,
        *,
        size: int = SIZE,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """The provider is closed at the end of `run`. `size`: tokens of each kind to remember."""
        self._provider = provider
        self._clock = clock
        self._issuer = config.issuer
        self._expected = Expected(
            issuer=config.issuer or config.url,
            audience=config.audience,
            id=config.id,
            roles=config.roles,
        )
        self._cache = float(config.cache)
        self._timeout = float(config.timeout)
        self._known: Memory[Principal] = Memory(size, clock=clock)
        self._refused: Memory[InvalidToken] = Memory(size, clock=clock)
        self._turns = Turns(MAX_CONNECTIONS, MAX_WAITING)
        self._asked: dict[bytes, asyncio.Task[Answer]] = {}
        self._failing = False

    async def principal(self, token: str, address: str) -> Principal | None:
        """Return whose token it is. Cancelling one who waits does not disturb the others.

        Raises:
            InvalidToken: nobody's, or it is not for us.
            IdentityUnavailable: the provider does not say.
        """
        key = digest(token)
        answer = self._known.get(key) or self._refused.get(key)
        if answer is None:
            answer = await asyncio.shield(self._task(key, token, address))
        if isinstance(answer, InvalidToken):
            raise InvalidToken(answer.detail, answer.fault)
        return answer

    async def run(self) -> None:
        """Live until cancelled; then leave nothing open."""
        try:
            await asyncio.Event().wait()
        finally:
            for task in self._asked.values():
                task.cancel()
            await asyncio.gather(*self._asked.values(), return_exceptions=True)
            await self._provider.close()

    def _task(self, key: bytes, token: str, address: str) -> asyncio.Task[Answer]:
        task = self._asked.get(key)
        if task is None:
            task = self._asked[key] = asyncio.create_task(self._find_out(key, token, address))
            task.add_done_callback(lambda done: self._asked_for(key, done))
        return task

    def _asked_for(self, key: bytes, task: asyncio.Task[Answer]) -> None:
        del self._asked[key]
        if not task.cancelled():
            task.exception()  # those who wait are told; there may be nobody left

    async def _find_out(self, key: bytes, token: str, address: str) -> Answer:
        try:
            async with self._turns.turn(address, patience=self._timeout):
                told = await self._ask(token)
        except NoTurn:
            raise IdentityUnavailable("too many tokens are being asked about") from None
        now = self._clock()
        answer = self._judged(told, key, now)
        if isinstance(answer, Principal):
            ends = now + self._cache
            until = ends if answer.expires is None else min(ends, answer.expires)
            self._known.put(key, answer, until=until)
        else:
            self._refused.put(key, answer, until=now + min(REFUSED, self._cache))
        return answer

    async def _ask(self, token: str) -> Mapping[str, Any]:
        try:
            content = await self._provider.post({"token": token, "token_type_hint": "access_token"})
            told = _told(content)
        except ProviderFailed as error:
            self._failed(error)
            raise IdentityUnavailable("the identity provider does not answer") from None
        self._answered()
        return told

    def _judged(self, told: Mapping[str, Any], key: bytes, now: float) -> Answer:
        if told.get("active") is not True:
            return InvalidToken("the token is not active, or not any more", TokenFault.INACTIVE)
        try:
            if self._issuer and told.get("iss", self._issuer) != self._issuer:
                message = f"expected a token of {self._issuer}"
                raise InvalidToken(message, TokenFault.UNKNOWN_ISSUER)
            expires = check_times(told, now=now, leeway=0.0)
            if self._expected.audience:
                check_audience(told, self._expected.audience)
            return speaker(told, self._expected, expires=expires, token_id=key.hex()[:32])
        except InvalidToken as refusal:
            return refusal

    def _failed(self, error: ProviderFailed) -> None:
        if not self._failing:
            self._failing = True
            logger.warning(
                "%s cannot be asked about tokens, so those that are not known are refused: %s",
                self._provider.url,
                error,
            )

    def _answered(self) -> None:
        if self._failing:
            self._failing = False
            logger.info("%s can be asked about tokens again", self._provider.url)


def _told(content: bytes) -> Mapping[str, Any]:
    """Read an answer. Raises `ProviderFailed`."""
    try:
        found = decode(content)
    except BadRequest as error:
        raise ProviderFailed(error.detail) from None
    if not isinstance(found, dict) or not isinstance(found.get("active"), bool):
        raise ProviderFailed('expected an object with true or false as "active"')
    return found


def credentials(config: IntrospectionConfig) -> httpx.Auth:
    """Return how the gateway names itself to the provider: RFC 6749, section 2.3.1."""
    return httpx.BasicAuth(quote_plus(config.client_id), quote_plus(client_secret(config)))
