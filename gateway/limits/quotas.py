"""Quotas: how many connections and subscriptions somebody may hold, on all nodes together."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress

from gateway.addresses import block
from gateway.admission import Admission
from gateway.broker.roll import BEAT, Roll, Wish
from gateway.config import QuotasConfig
from gateway.errors import BrokerUnavailable, QuotaExceeded
from gateway.policy.limits import bounded
from gateway.principals import UNKNOWN, Caller
from gateway.settings import Of
from gateway.telemetry.metrics import Metrics

CHUNK = 500
"""Numbers that are written to the broker in one call."""
RETRY = 1.0
"""Seconds until a broker that is away is tried again."""


class Quotas:
    """Counts what this process holds, and asks the broker what all of them hold together.

    While the broker is away everybody may hold this process's share of the quota. Whatever it did
    not hear meanwhile it hears when it is back.
    """

    def __init__(
        self, config: QuotasConfig, roll: Roll, admission: Admission, metrics: Metrics
    ) -> None:
        self._most: Mapping[Of, Mapping[str, int]] = {
            of: {
                holder: most
                for holder in ("principal", "ip")
                if (most := getattr(config, f"{of}_per_{holder}")) is not None
            }
            for of in (Of.CONNECTIONS, Of.SUBSCRIPTIONS)
        }
        self._roll = roll
        self._admission = admission
        self._metrics = metrics
        self._held: Counter[str] = Counter()
        self._unwritten: set[str] = set()
        self._changed = asyncio.Event()
        self._next_beat = 0.0
        self.processes = 1
        """That serve together, as far as it is known."""

    def __bool__(self) -> bool:
        return any(self._most.values())

    def concern(self, of: Of) -> bool:
        """Return whether there is any quota of this kind."""
        return bool(self._most[of])

    async def enter(self, caller: Caller, *, subscriptions: int = 0) -> "Holding":
        """Return what holds a connection of the caller, and some subscriptions of it.

        Raises:
            QuotaExceeded: it would be too many.
            Overloaded: too many requests wait for the broker.
        """
        holding = Holding(self, caller)
        await self.take(caller, {Of.CONNECTIONS: 1, Of.SUBSCRIPTIONS: subscriptions})
        holding.begin(subscriptions)
        return holding

    async def take(self, caller: Caller, amounts: Mapping[Of, int]) -> None:
        """Hold more for a caller: all of it, or nothing.

        Cancelling takes it back. Raises `QuotaExceeded`, `Overloaded`.
        """
        wanted = list(self._wanted(caller, amounts))
        if not wanted:
            return
        for name, amount, _, _ in wanted:
            self._held[name] += amount
        try:
            refused = await self._ask([(name, most) for name, _, most, _ in wanted])
        except BaseException:
            self.give(caller, amounts)
            raise
        if refused is not None:
            self.give(caller, amounts)
            _, _, most, quota = wanted[refused]
            self._metrics.limited.labels(quota).inc()
            of, _, holder = quota.partition("_per_")
            raise QuotaExceeded(f"expected at most {most} {of} per {holder}", limit=quota)

    def give(self, caller: Caller, amounts: Mapping[Of, int]) -> None:
        """Hold less for a caller. The broker hears of it soon."""
        for name, amount, _, _ in self._wanted(caller, amounts):
            self._held[name] -= amount
            if not self._held[name]:
                del self._held[name]
            self._unwritten.add(name)
            self._changed.set()

    def _wanted(
        self, caller: Caller, amounts: Mapping[Of, int]
    ) -> Iterator[tuple[str, int, int, str]]:
        """Give what is counted: its name, the amount, how much may be held, the quota's name."""
        for of, amount in amounts.items():
            for holder, most in self._most[of].items() if amount else ():
                whose = block(caller.address)
                if holder == "principal" and caller.principal is UNKNOWN:
                    continue  # many people may have one address, and it is soon known who it is
                if holder == "principal":
                    whose = caller.principal.name or f"@{whose}"
                yield bounded(f"{of}/{holder}:{whose}"), amount, most, f"{of}_per_{holder}"

    async def _ask(self, wanted: list[tuple[str, int]]) -> int | None:
        """Return the index of what is too much; None if nothing is."""
        try:
            async with self._admission.admitted():
                return await self._roll.occupy(
                    [Wish(name, self._held[name], most) for name, most in wanted]
                )
        except BrokerUnavailable:
            self._unwritten.update(name for name, _ in wanted)
            for index, (name, most) in enumerate(wanted):
                if self._held[name] > -(-most // self.processes):
                    return index
            return None

    async def run(self) -> None:
        """Tell the broker what this process holds, and that it lives, until cancelled."""
        while True:
            try:
                await self._beat()
                await self._write()
            except BrokerUnavailable:
                await asyncio.sleep(random.uniform(RETRY / 2, RETRY))
                continue
            self._changed.clear()
            if self._unwritten:
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, self._next_beat - time.monotonic())):
                    await self._changed.wait()

    async def _beat(self) -> None:
        if time.monotonic() < self._next_beat:
            return
        known, self.processes = await self._roll.attend()
        if not known:
            self._unwritten.update(self._held)
        self._next_beat = time.monotonic() + BEAT

    async def _write(self) -> None:
        while self._unwritten:
            names = [self._unwritten.pop() for _ in range(min(CHUNK, len(self._unwritten)))]
            try:
                await self._roll.hold({name: self._held[name] for name in names})
            except BaseException:
                self._unwritten.update(names)
                raise

    async def leave(self) -> None:
        """Give back all that this process holds. Raises `BrokerUnavailable`."""
        await self._roll.leave()


class Holding:
    """What one connection holds; it gives all of it back at its end."""

    __slots__ = ("_caller", "_quotas", "_subscriptions", "closed")

    def __init__(self, quotas: Quotas, caller: Caller) -> None:
        self._quotas = quotas
        self._caller = caller
        self._subscriptions = 0
        self.closed = True

    def begin(self, subscriptions: int) -> None:
        """It holds a connection and so many subscriptions from now on."""
        self.closed = False
        self._subscriptions = subscriptions

    async def subscribe(self) -> None:
        """Hold one more subscription. Raises `QuotaExceeded`, `Overloaded`."""
        await self._quotas.take(self._caller, {Of.SUBSCRIPTIONS: 1})
        if self.closed:  # the connection ended meanwhile
            self._quotas.give(self._caller, {Of.SUBSCRIPTIONS: 1})
        else:
            self._subscriptions += 1

    def unsubscribe(self, count: int = 1) -> None:
        """Give subscriptions back."""
        count = min(count, self._subscriptions)
        self._subscriptions -= count
        self._quotas.give(self._caller, {Of.SUBSCRIPTIONS: count})

    def close(self) -> None:
        """Give everything back. Harmless when done twice."""
        if not self.closed:
            self.closed = True
            amounts = {Of.CONNECTIONS: 1, Of.SUBSCRIPTIONS: self._subscriptions}
            self._quotas.give(self._caller, amounts)
