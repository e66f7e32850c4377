"""Admission: what may be asked of the broker now, so that nobody waits in vain.

A broker that is away or too slow would hold every request until it timed out, and requests would
pile up behind each other. Instead the first one to fail opens the circuit for all: from then on
they are refused at once, until a probe shows that the broker takes writes again.
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from enum import StrEnum

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
        self.circuit = Circuit.CLOSED

    @asynccontextmanager
    async def admitted(
        self, priority: Priority = Priority.NORMAL, *, answered: bool = False
    ) -> AsyncIterator[None]:
        """Give way to one request to the broker, for as long as the block lasts.

        Nobody waits for one that was `answered` already, so it has all the time that it needs.

        Raises:
            BrokerUnavailable: the circuit is open; or the block took too long, or raised this
                itself, and then it is unknown what the broker did.
            Overloaded: too many requests are under way.
        """
        self.check(priority)
        self.under_way += 1
        try:
            async with asyncio.timeout(None if answered else self._patience):
                yield
        except TimeoutError:
            self._open("it did not answer in time")
            raise BrokerUnavailable("the broker did not answer in time") from None
        except BrokerUnavailable as error:
            self._open(str(error))
            raise
        finally:
            self.under_way -= 1

    def check(self, priority: Priority) -> None:
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

    def _open(self, reason: str) -> None:
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
