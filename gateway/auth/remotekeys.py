"""The keys that an issuer publishes at a URL: cached, renewed, and kept while the URL is down."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

from gateway.auth.provider import Provider, ProviderFailed
from gateway.authconfig import Algorithm
from gateway.errors import IdentityUnavailable
from gateway.policy.keysets import Key, KeySet

logger = logging.getLogger(__name__)

TIMEOUT = 5.0
"""Seconds that the URL may take."""
RETRY = 5.0
"""Seconds between tries while it is down."""
BURST: Final = 4
PERIOD: Final = 10.0
"""Tokens with unknown keys have the keys fetched anew this many times at once, and then once in so
many seconds: strangers who make up key ids cannot have us hammer the issuer."""


class RemoteKeys:
    """The key set at a URL. `run` is the only one who fetches: all who wait share its rounds."""

    def __init__(
        self,
        provider: Provider,
        read: Callable[[bytes], KeySet],
        *,
        refresh: float,
        max_stale: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`read` makes sense of what is there, or raises `ValueError`. Times are in seconds."""
        self._provider = provider
        self._read = read
        self._refresh = refresh
        self._max_stale = max_stale
        self._clock = clock
        self._keys: KeySet | None = None
        self._content = b""
        self._fetched = 0.0
        self._failing = False
        self._wanted = asyncio.Event()
        self._round = asyncio.Event()
        self._allowance = Allowance(BURST, PERIOD, clock)

    def current(self) -> KeySet:
        """Return the keys. Raises `IdentityUnavailable` if none were had, or for too long."""
        if self._keys is None or self._clock() - self._fetched > self._max_stale + self._refresh:
            raise IdentityUnavailable("the issuer's keys cannot be had")
        return self._keys

    async def find(self, kid: str | None, algorithm: Algorithm) -> Key | None:
        """Return the key that a token names, if necessary after another look at the URL.

        Raises:
            IdentityUnavailable: it is not known, and the URL is down: there may be such a key.
        """
        if self._keys is None and not self._failing:
            await self._next_round()
        found = self.current().find(kid, algorithm)
        if found is None and not self._failing and self._allowance.take():
            await self._next_round()
            found = self.current().find(kid, algorithm)
        if found is None and self._failing:
            raise IdentityUnavailable("the issuer's newest keys cannot be had")
        return found

    async def run(self) -> None:
        """Fetch the keys, again and again. To be cancelled."""
        try:
            while True:
                await self._fetch()
                self._wanted.clear()  # who asked meanwhile has been served
                try:
                    async with asyncio.timeout(RETRY if self._failing else self._refresh):
                        await self._wanted.wait()
                except TimeoutError:
                    pass
        finally:
            await self._provider.close()

    async def _next_round(self) -> None:
        round_ = self._round
        self._wanted.set()
        try:
            async with asyncio.timeout(TIMEOUT + 1):
                await round_.wait()
        except TimeoutError:
            raise IdentityUnavailable("the issuer's keys cannot be had now") from None

    async def _fetch(self) -> None:
        try:
            content = await self._provider.get()
            if self._keys is None or content != self._content:
                self._keys = self._read(content)
                self._content = content
                if not len(self._keys):
                    logger.warning("%s has no key that is of use", self._provider.url)
        except (ProviderFailed, ValueError) as error:
            self._failed(error)
        else:
            self._fetched = self._clock()
            if self._failing:
                self._failing = False
                logger.info("there are keys again at %s", self._provider.url)
        self._round.set()
        self._round = asyncio.Event()

    def _failed(self, error: Exception) -> None:
        if not self._failing:
            self._failing = True
            known = "no keys are known" if self._keys is None else "the last ones go on counting"
            logger.warning("no keys from %s, %s: %s", self._provider.url, known, error)


class Allowance:
    """A token bucket: `burst` at once, and one more in every `period` seconds."""

    def __init__(self, burst: int, period: float, clock: Callable[[], float]) -> None:
        self._burst = burst
        self._period = period
        self._clock = clock
        self._left = float(burst)
        self._counted = clock()

    def take(self) -> bool:
        """Take one, if there is one."""
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._counted) / self._period)
        self._counted = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
