"""Quarantine: commands that may be what killed their workers run one at a time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

WATCHED = 10.0
"""Seconds after which a command that has killed nobody yet no longer holds back the others. Without
that bound one that hangs would keep them for as long as it is allowed to."""


class Quarantine:
    """One suspect at a time, so that the one that kills takes no attempt of another with it."""

    def __init__(self) -> None:
        self._free = asyncio.Lock()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Wait until no other suspect is watched. Cancelling is safe."""
        await self._free.acquire()
        watched = True

        def release() -> None:
            nonlocal watched
            if watched:
                watched = False
                self._free.release()

        timer = asyncio.get_running_loop().call_later(WATCHED, release)
        try:
            yield
        finally:
            timer.cancel()
            release()
