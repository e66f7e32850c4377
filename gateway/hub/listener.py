"""A subscriber inside this process: how a request waits for what comes of its command."""

import asyncio
from collections.abc import Callable

import msgspec

from gateway.errors import CloseCode
from gateway.hub.audience import Audience
from gateway.hub.hub import Hub
from gateway.hub.subscription import Request
from gateway.principals import ANYBODY


class _Lines:
    """Events as they are, each on a line: JSON never holds a line break."""

    def event(self, position: bytes, event: bytes) -> bytes:
        return event + b"\n"

    def heartbeat(self, position: bytes | None) -> bytes:
        return b""


_LINES = _Lines()


class Listener:
    """Waits for the first event on a channel that satisfies a predicate.

    Listens from the moment it is made; `close` it in any case.
    """

    encoding = _LINES
    descriptor = -1
    caller = ANYBODY

    def __init__(self, hub: Hub, channel: str, wanted: Callable[[dict[str, object]], bool]) -> None:
        self.audiences: tuple[Audience, ...] = ()
        self.number = 0
        self.since = 0.0
        self.closed = False
        self._hub = hub
        self._wanted = wanted
        self._found: asyncio.Future[dict[str, object] | None]
        self._found = asyncio.get_running_loop().create_future()
        hub.open(self)  # so that it hears when nothing more will come
        hub.subscribe(self, Request((channel,), None, lambda _: b"", lambda _: None))

    async def event(self) -> dict[str, object] | None:
        """Return the event, once it came; None if it can no longer come. Cancelling is safe."""
        return await asyncio.shield(self._found)

    def close(self) -> None:
        self.closed = True
        self._hub.close(self)
        if not self._found.done():
            self._found.set_result(None)

    # What the hub calls

    def write(self, data: bytes) -> None:
        for line in data.splitlines():
            event = msgspec.json.decode(line)
            if not self._found.done() and self._wanted(event):
                self._found.set_result(event)

    def unsent(self) -> int:
        return 0

    async def drained(self) -> None:
        pass

    def beat(self, sign: bytes) -> None:
        pass

    def goodbye(self, code: CloseCode, retry_ms: int) -> None:
        self.close()
