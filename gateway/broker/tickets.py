"""Tickets: who may open one connection soon, without showing its credentials again."""

import hashlib
import secrets

import msgspec

from gateway.broker.keys import Keys
from gateway.broker.scripts import Pipeline
from gateway.principals import Principal

SIZE = 32
"""Random bytes of a ticket: nobody guesses one while it lasts."""
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
        """Return a new ticket, which holds for so many milliseconds. Raises `BrokerUnavailable`."""
        ticket = secrets.token_urlsafe(SIZE)
        kept = msgspec.json.encode(admittance)
        await self._pipeline.call("issue", [self._key(ticket)], [kept, ttl_ms])
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
        return self._keys.ticket(hashlib.sha256(ticket.encode()).hexdigest())
