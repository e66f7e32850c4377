"""The burden: what the large bodies of all requests under way take in memory."""

from collections import Counter
from collections.abc import Iterator

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.addresses import Proxies, block, canonical, is_loopback
from gateway.errors import Overloaded

SMALL = 64 << 10
"""Bytes of a body that is always taken: those who send such ones do not suffer from others."""
MOST = 256 << 20
"""Bytes of all that are larger, or of sixteen as large as may be."""
SHARE = 64 << 20
"""Bytes of those from one address, or of four as large as may be."""
_BODILESS = ("GET", "HEAD", "OPTIONS")


class Burden:
    """Pure ASGI middleware that refuses what would be too much at a time.

    A body stays in memory while it comes, as slowly as its sender likes, while its request waits
    for its turn where a limit has a queue, and until the request is answered.
    """

    def __init__(self, app: ASGIApp, *, proxies: Proxies, max_body: int) -> None:
        self._app = app
        self._proxies = proxies
        self._most = max(MOST, 16 * max_body)
        self._share = max(SHARE, 4 * max_body)
        self._held: Counter[str] = Counter()
        """Bytes, by the address of who sent them."""
        self.total = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in _BODILESS:
            await self._app(scope, receive, send)
            return
        load = _Load(self, scope, receive)
        try:
            await self._app(scope, load.receive, send)
        finally:
            load.put_down()

    def sender(self, scope: Scope) -> str:
        """Return who counts as one sender; empty for this machine, which may be a proxy."""
        peer = (scope.get("client") or ("", 0))[0]
        address = self._proxies.client(peer, lambda: _texts(scope))
        return "" if is_loopback(address) else block(canonical(address) or address)

    def take(self, sender: str, size: int) -> None:
        """Hold more bytes of a sender. Raises `Overloaded`."""
        if sender and self._held[sender] + size > self._share:
            raise Overloaded(f"expected large bodies of at most {self._share} bytes of one address")
        if self.total + size > self._most:
            raise Overloaded(f"expected large bodies of at most {self._most} bytes at a time")
        self._held[sender] += size
        self.total += size

    def give(self, sender: str, size: int) -> None:
        """Hold less of a sender."""
        self.total -= size
        self._held[sender] -= size
        if not self._held[sender]:
            del self._held[sender]


class _Load:
    """What one request adds."""

    __slots__ = ("_burden", "_came", "_receive", "_scope", "_sender", "_taken")

    def __init__(self, burden: Burden, scope: Scope, receive: Receive) -> None:
        self._burden = burden
        self._scope = scope
        self._receive = receive
        self._came = 0
        self._taken = 0
        self._sender = ""

    async def receive(self) -> Message:
        message = await self._receive()
        self._came += len(message.get("body", b""))
        if self._came > SMALL and self._came > self._taken:
            if not self._taken:
                self._sender = self._burden.sender(self._scope)
            self._burden.take(self._sender, self._came - self._taken)
            self._taken = self._came
        return message

    def put_down(self) -> None:
        if self._taken:
            self._burden.give(self._sender, self._taken)


def _texts(scope: Scope) -> Iterator[tuple[str, str]]:
    for name, value in scope["headers"]:
        yield name.decode("latin-1"), value.decode("latin-1")
