"""API keys, as a source of principals."""

import time
from collections.abc import Callable

from gateway.auth.watchedfile import WatchedFile
from gateway.policy.apikeys import KeyRing
from gateway.principals import Principal


class APIKeys:
    """Knows the keys of a file, which is read again when it changes: a key that is gone is refused.

    Nothing is remembered of them: to hash a key costs less than to look it up.
    """

    def __init__(
        self, file: WatchedFile[KeyRing], *, clock: Callable[[], float] = time.time
    ) -> None:
        self._file = file
        self._clock = clock

    async def principal(self, token: str) -> Principal | None:
        """Return whose key it is; None if it is no API key. Raises `InvalidToken`."""
        return self._file.current().principal(token, now=self._clock())

    async def run(self) -> None:
        pass
