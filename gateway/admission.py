"""Admission: what may be asked of the broker now, so that nobody waits in vain.

A broker that is away or too slow would hold every request until it timed out, and requests would
pile up behind each other. Instead the first one to fail opens the circuit for all: from then on
they are refused at once, until a probe shows that the broker takes writes again.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from enum import StrEnum
from types import TracebackType

from gateway.commands import Priority
from gateway.errors import BrokerUnavailable, Overloaded

PROBE_FIRST, PROBE_LONGEST = 0.1, 2.0
"""Seconds until the first probe of an open circuit, and between later ones at most."""

logger = logging.getLogger(__name__)


class Circuit(StrEnum):
    """Whether requests reach the broker."""

    CLOSED = "closed"
    """They do."""
    OPEN = "open"
    """They are refused."""
    HALF_OPEN = "half-open"
    """They are refused, and a probe is under way."""


MAX_BYTES = 32 << 20
"""Of all requests under way: more could keep the broker busy for longer than anybody waits."""
SMALL = 64 << 10
"""Bytes of a request that is not refused because of that: it shall not suffer from large ones."""
SHARES = {Priority.NORMAL: 1.0, Priority.LOW: 0.5}
"""Of the requests that may be under way: what those of a priority can fill."""


class Admission:
    """Lets requests through to the broker, up to a number at a time and for a time each."""

    def __init__(
        self, probe: Callable[[], Awaitable[object]], *, limit: int, patience: float
    ) -> None:
        """`probe` asks the broker for a write that matters to nobody; it raises
        `BrokerUnavailable`. `limit` requests may be under way; each has `patience` seconds.
        """
        self._probe = probe
        self._limits = {priority: max(1, int(limit * share)) for priority, share in SHARES.items()}
        self._patience = patience
        self._opened = asyncio.Event()
        self.under_way = 0
        self.bytes_under_way = 0
        self.circuit = Circuit.CLOSED

    def admitted(
        self, priority: Priority = Priority.NORMAL, *, size: int = 0, answered: bool = False
    ) -> "_Passage":
        """Give way to one request to the broker, for as long as the block lasts.

        `size`: the bytes that it brings; without it, next to none.
        One that was `answered` already had its `check` before that. Nobody waits for it, so it has
        all the time that it needs.

        Raises:
            BrokerUnavailable: the circuit is open; or the block took too long, or raised this
                itself, and then it is unknown what the broker did.
            Overloaded: too many requests are under way.
        """
        timeout = asyncio.timeout(None if answered else self._patience)
        return _Passage(self, None if answered else priority, size, timeout)

    def check(self, priority: Priority, size: int = 0) -> None:
        """Return if a request would be let through now.

        Raises `BrokerUnavailable`, `Overloaded`; nothing was sent then.
        """
        if self.circuit is not Circuit.CLOSED:
            raise BrokerUnavailable("the broker is away; this was not sent to it")
        if self.under_way >= self._limits[priority]:
            raise Overloaded(
                f"expected fewer than {self._limits[priority]} requests of {priority} priority "
                "under way at the broker"
            )
        most = MAX_BYTES * SHARES[priority]
        if size > SMALL and self.bytes_under_way and self.bytes_under_way + size > most:
            raise Overloaded(
                f"expected at most {most:.0f} bytes of {priority} priority under way at the broker"
            )

    def open(self, reason: str) -> None:
        """Refuse all requests until a probe finds the broker well."""
        if self.circuit is Circuit.CLOSED:
            logger.warning("requests are refused from now on: %s", reason)
            self.circuit = Circuit.OPEN
            self._opened.set()

    async def run(self) -> None:
        """Probe whenever the circuit is open, until cancelled."""
        while True:
            await self._opened.wait()
            await self._probe_until_well()
            self._opened.clear()
            self.circuit = Circuit.CLOSED
            logger.info("the broker is back: requests are let through")

    async def _probe_until_well(self) -> None:
        longest = PROBE_FIRST
        while True:
            # Half of the pause is random: the processes that lost the broker together do not all
            # ask again together.
            await asyncio.sleep(random.uniform(longest / 2, longest))
            longest = min(PROBE_LONGEST, longest * 2)
            self.circuit = Circuit.HALF_OPEN
            try:
                async with asyncio.timeout(self._patience):
                    await self._probe()
            except (BrokerUnavailable, TimeoutError):
                self.circuit = Circuit.OPEN
            else:
                return


class _Passage:
    """The way of one request to the broker, as a context manager.

    A class, which costs less than a generator: with limits every command pays for it twice.
    """

    __slots__ = ("_admission", "_priority", "_size", "_timeout")

    def __init__(
        self, admission: Admission, priority: Priority | None, size: int, timeout: asyncio.Timeout
    ) -> None:
        self._admission = admission
        self._priority = priority
        self._size = size
        self._timeout = timeout

    async def __aenter__(self) -> None:
        if self._priority is not None:
            self._admission.check(self._priority, self._size)
        self._admission.under_way += 1
        self._admission.bytes_under_way += self._size
        await self._timeout.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._admission.under_way -= 1
        self._admission.bytes_under_way -= self._size
        try:
            await self._timeout.__aexit__(kind, error, traceback)
        except TimeoutError as late:
            error = late
        if isinstance(error, TimeoutError):
            self._admission.open("it did not answer in time")
            raise BrokerUnavailable("the broker did not answer in time") from None
        if isinstance(error, BrokerUnavailable):
            self._admission.open(str(error))
