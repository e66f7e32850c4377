"""Tickets: who may open one connection soon, without showing its credentials again."""

import hashlib
import secrets

import msgspec

from gateway.broker.keys import Keys
from gateway.broker.scripts import Pipeline
from gateway.errors import RateLimited
from gateway.principals import Principal

SIZE = 32
"""Random bytes of a ticket: nobody guesses one while it lasts."""
MAX_TAKEN = 8 << 20
"""Bytes of the server's memory that tickets of one principal may take at a time: some ten thousand,
if they are not for many channels."""
OVERHEAD = 256
"""Bytes that a ticket takes beside what it stands for."""
MAX_LENGTH = 100
"""Characters; what is longer is no ticket, and is not looked for."""


class Admittance(msgspec.Struct, frozen=True, kw_only=True):
    """What a ticket stands for."""

    principal: Principal
    channels: tuple[str, ...] | None = None
    """Those that may be subscribed to; None: as the principal may."""


_decode = msgspec.json.Decoder(Admittance).decode


class Tickets:
    """Keeps tickets where every serving process finds them: hashed, so that who reads the server's
    memory has none. May be called concurrently, by many processes.
    """

    def __init__(self, pipeline: Pipeline, keys: Keys) -> None:
        self._pipeline = pipeline
        self._keys = keys

    async def issue(self, admittance: Admittance, *, ttl_ms: int) -> str:
        """Return a new ticket, which holds for so many milliseconds.

        Raises:
            RateLimited: those of its principal take as much as they may already.
            BrokerUnavailable: it cannot be kept.
        """
        ticket = secrets.token_urlsafe(SIZE)
        kept = msgspec.json.encode(admittance)
        keys = [self._key(ticket), self._keys.issued(_digest(admittance.principal.name))]
        early = await self._pipeline.call(
            "issue", keys, [kept, ttl_ms, len(kept) + OVERHEAD, MAX_TAKEN]
        )
        if early:
            message = f"expected tickets of one principal that take at most {MAX_TAKEN} bytes"
            raise RateLimited(message, limit="tickets", retry_after=early / 1000)
        return ticket

    async def redeem(self, ticket: str) -> Admittance | None:
        """Return what a ticket stands for, once; None if it is none, any more. In one atomic step.

        Raises `BrokerUnavailable`: the ticket may then be used up.
        """
        if len(ticket) > MAX_LENGTH:
            return None
        kept: bytes | None = await self._pipeline.call("redeem", [self._key(ticket)], [])
        return None if kept is None else _decode(kept)

    def _key(self, ticket: str) -> str:
        return self._keys.ticket(_digest(ticket))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
