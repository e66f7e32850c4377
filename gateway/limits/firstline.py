"""The first line: what one address may ask of one process, before anything is looked at.

It needs no broker and next to no time, so that a burst from one address does not hold up others:
who asks more often is answered with 429 by the server's protocol, and not read from for a while.
"""

import time
from collections.abc import Callable, Iterable

from gateway.addresses import Proxies, block, canonical, is_loopback
from gateway.buckets import Buckets, Charge
from gateway.errors import RateLimited
from gateway.settings import Frequency

SHARE = 0.25
"""Of what may be asked in a second: how much of it at once. A process that is busy for longer with
the burst of one address lets others wait."""
LEAST = 50
"""Requests at once that a browser may need for one page."""
PENALTY = 1.0
"""Seconds for which who asked too often is not listened to: meanwhile it costs nothing."""


LIMIT = "requests_per_ip"
"""What headers, errors and metrics call it."""


def too_often(seconds: float) -> RateLimited:
    """Return the refusal of who has to be quiet for so long."""
    return RateLimited(
        "expected fewer requests a second from one address", limit=LIMIT, retry_after=seconds
    )


class FirstLine:
    """Counts the requests of each address. This machine's own are not counted.

    They are an operator's, or those of a proxy that nobody configured: then all clients together
    have its address, and to hold them back would be worse than nothing.
    """

    def __init__(
        self,
        rate: Frequency,
        proxies: Proxies,
        refused: Callable[[], object] = lambda: None,
        is_own: Callable[[str], bool] = is_loopback,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`refused` is called for each refusal; `is_own` tells whom not to count."""
        self._rate = rate
        self._burst = max(LEAST, int(rate * SHARE))
        self._proxies = proxies
        self._refused = refused
        self._is_own = is_own
        self._clock = clock
        self._buckets = Buckets()

    def is_proxy(self, peer: str) -> bool:
        """Return whether others speak through a peer."""
        return self._proxies.trusts(canonical(peer) or peer)

    def early(self, peer: str) -> float:
        """Return for how many seconds a peer is not to be listened to. Counts nothing."""
        if self._is_own(peer) or self.is_proxy(peer):
            return 0.0
        early = self._buckets.delay(self._charge(peer), self._clock())
        return max(early, PENALTY) if early else 0.0

    def ask(self, peer: str, headers: Callable[[], Iterable[tuple[str, str]]]) -> float:
        """Count a request. Returns 0, or for how many seconds its sender has to be quiet.

        `headers` are asked for only where the peer is a proxy.
        """
        return self.count(self._proxies.client(peer, headers))

    def count(self, address: str) -> float:
        """Count a request of an address. Returns 0, or for how many seconds it has to be quiet."""
        if self._is_own(address):
            return 0.0
        verdict = self._buckets.charge([self._charge(address)], self._clock())
        if not verdict.retry_after:
            return 0.0
        self._refused()
        return max(verdict.retry_after, PENALTY)

    def _charge(self, address: str) -> Charge:
        return Charge(block(canonical(address) or address), 1 / self._rate, self._burst)
