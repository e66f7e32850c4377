"""The doorkeeper: lets callers in, by whatever they show, unless they are blocked."""

import time
from collections.abc import Mapping
from dataclasses import replace

from gateway.admission import Admission
from gateway.auth.authenticator import Authenticator
from gateway.auth.credentials import Credential, Kind, Showing
from gateway.blocks import Block, Blocks
from gateway.broker.tickets import Admittance, Tickets
from gateway.errors import Forbidden, Unauthorized
from gateway.principals import ANONYMOUS, Caller, Principal


class Doorkeeper:
    """Knows callers by tokens, cookies and tickets, and issues tickets."""

    def __init__(
        self,
        authenticator: Authenticator,
        showing: Showing,
        tickets: Tickets,
        blocks: Blocks,
        admission: Admission,
        *,
        ticket_ttl: float,
    ) -> None:
        """`ticket_ttl`: seconds for which a ticket can be used."""
        self._authenticator = authenticator
        self._showing = showing
        self._tickets = tickets
        self._blocks = blocks
        self._admission = admission
        self._ticket_ttl = ticket_ttl

    async def identify(
        self, headers: Mapping[str, str], query: Mapping[str, str], caller: Caller
    ) -> Caller:
        """Return the caller, of whom it is known from where, as who makes this request.

        See `Guard.identify`.
        """
        shown = self._showing(headers, query, caller.transport)
        if shown is None or not self._authenticator.configured:
            principal = await self._authenticator.identify(headers, caller.address)
            self._blocks.check(principal)
            return replace(caller, principal=principal)
        return await self.admit(shown, caller)

    async def admit(self, shown: Credential, caller: Caller) -> Caller:
        """Return the caller as who the credential says that it is.

        Raises:
            Unauthorized: the credential is wrong, expired, used up or revoked.
            Forbidden: the caller is blocked.
            Overloaded, BrokerUnavailable: a ticket cannot be looked at now.
        """
        if not self._authenticator.configured:
            return replace(caller, principal=ANONYMOUS)
        if shown.kind is Kind.TOKEN:
            principal = await self._authenticator.principal(shown.value, caller.address)
            admitted = replace(caller, principal=principal)
        else:
            admittance = await self._redeem(shown.value)
            channels = admittance.channels
            admitted = replace(
                caller,
                principal=admittance.principal,
                channels=caller.channels if channels is None else frozenset(channels),
            )
        self._blocks.check(admitted.principal)
        return admitted

    async def refresh(self, shown: Credential, caller: Caller) -> Caller:
        """Return the caller with a newer credential. What a ticket narrowed stays narrow.

        Raises as `admit` does, and `Forbidden` if the credential is somebody else's.
        """
        admitted = await self.admit(shown, caller)
        if admitted.principal.name != caller.principal.name:
            raise Forbidden("expected a credential of the same principal")
        if caller.channels is not None and admitted.channels is not None:
            return replace(admitted, channels=admitted.channels & caller.channels)
        return admitted

    def blocked(self, principal: Principal) -> Block | None:
        """Return what keeps somebody out by now, if anything does."""
        return self._blocks.of(principal)

    async def issue_ticket(self, caller: Caller, channels: tuple[str, ...] | None) -> str:
        """Return a ticket for who asks, for all that it may or for these channels alone.

        Raises:
            Unauthorized: nobody in particular asks.
            RateLimited: too much is kept of its tickets already.
            Overloaded, BrokerUnavailable: it cannot be kept now.
        """
        principal = caller.principal
        if principal.anonymous:
            raise Unauthorized("expected credentials of somebody who wants the ticket")
        async with self._admission.admitted():
            return await self._tickets.issue(
                Admittance(principal=principal, channels=channels),
                ttl_ms=int(self._ticket_ttl * 1000),
            )

    async def _redeem(self, ticket: str) -> Admittance:
        async with self._admission.admitted():
            found = await self._tickets.redeem(ticket)
        if found is None:
            raise Unauthorized("the ticket was used already, or expired, or never was one")
        expires = found.principal.expires
        if expires is not None and expires <= time.time():
            raise Unauthorized("the ticket is of credentials that have expired since")
        return found
