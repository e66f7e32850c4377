"""API keys, as a source of principals."""

import asyncio
import time
from collections.abc import Callable

from gateway.auth.watchedfile import INTERVAL, WatchedFile
from gateway.policy.apikeys import KeyRing
from gateway.principals import Principal


class APIKeys:
    """Knows the keys of a file, which is read again when it changes: a key that is gone is refused.

    Nothing is remembered of them: to hash a key costs less than to look it up.
    """

    def __init__(
        self,
        file: WatchedFile[KeyRing],
        *,
        lost: Callable[[frozenset[str]], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`lost` is told the prefixes of keys that have gone from the file, or have changed."""
        self._file = file
        self._lost = lost
        self._clock = clock

    async def principal(self, token: str, address: str) -> Principal | None:
        """Return whose key it is; None if it is no API key. Raises `InvalidToken`."""
        return self._file.current().principal(token, now=self._clock())

    async def run(self) -> None:
        """Look out for keys that are taken away while connections are open that they opened."""
        known = self._file.current()
        while True:
            await asyncio.sleep(INTERVAL)
            ring = self._file.current()
            if ring is not known:
                if lost := ring.lost_since(known):
                    self._lost(lost)
                known = ring
