"""The guard: who is asking, and what they may do. Every door asks it, through the dispatcher."""

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.addresses import Proxies
from gateway.admission import Admission
from gateway.auth.doorkeeper import Doorkeeper
from gateway.broker.streams import CommandStreams
from gateway.channels import EARLIEST, Position, check_name
from gateway.errors import Forbidden, Unauthorized, UnknownChannel
from gateway.limits.limiter import Allowance, Limiter
from gateway.limits.quotas import Holding, Quotas
from gateway.policy.limits import Deed
from gateway.policy.permissions import Action, Permissions
from gateway.policy.routes import STATUS_PATTERN, Channels, CommandRoute
from gateway.principals import UNKNOWN, Caller, Transport
from gateway.settings import Of


class Guard:
    """Knows callers, and judges by the rules what they may do."""

    def __init__(
        self,
        permissions: Permissions,
        channels: Channels,
        streams: CommandStreams,
        admission: Admission,
        doorkeeper: Doorkeeper,
        limiter: Limiter,
        quotas: Quotas,
        proxies: Proxies,
    ) -> None:
        self._doorkeeper = doorkeeper
        self._permissions = permissions
        self._channels = channels
        self._streams = streams
        self._admission = admission
        self._limiter = limiter
        self._quotas = quotas
        self._proxies = proxies

    async def identify(
        self,
        headers: Mapping[str, str],
        query: Mapping[str, str],
        *,
        peer: tuple[str, int] | None,
        transport: Transport = Transport.HTTP,
    ) -> Caller:
        """Return who makes a request, and from where. `peer` is at the other end of the connection.

        Raises:
            Unauthorized: the credentials are wrong, or were revoked; or they are missing, and some
                are needed.
            Forbidden: the caller is blocked.
            Overloaded, BrokerUnavailable: a ticket is shown, and cannot be looked at now.
        """
        located = self.locate(headers, peer, transport)
        return await self._doorkeeper.identify(headers, query, located)

    def locate(
        self,
        headers: Mapping[str, str],
        peer: tuple[str, int] | None,
        transport: Transport = Transport.HTTP,
    ) -> Caller:
        """Return from where a request comes, whoever makes it."""
        host, port = peer or ("", 0)
        address = self._proxies.client(host, headers.items)
        return Caller(
            address=address, transport=transport, connection=f"{host}:{port}" if peer else ""
        )

    async def charge(
        self, of: Of, caller: Caller, *, command: str = "", count: int = 1
    ) -> Allowance:
        """Charge what a caller is about to do to the limits. May wait, where one has a queue.

        Raises `RateLimited`, `Overloaded`.
        """
        return await self._limiter.charge(Deed(of, caller, command, count))

    async def enter(self, caller: Caller, *, subscriptions: int) -> Holding:
        """Return what holds a connection, and some subscriptions of it, until it is closed.

        Raises `RateLimited`, `QuotaExceeded`, `Overloaded`.
        """
        if caller.principal is not UNKNOWN:  # who says later who it is comes here once more
            await self._limiter.charge(
                Deed(Of.CONNECTIONS, caller), Deed(Of.SUBSCRIPTIONS, caller, cost=subscriptions)
            )
        return await self._quotas.enter(caller, subscriptions=subscriptions)

    @property
    def counts_subscriptions(self) -> bool:
        """Whether there are limits or quotas of subscriptions."""
        return any(each.concern(Of.SUBSCRIPTIONS) for each in (self._limiter, self._quotas))

    def check_command(
        self, route: CommandRoute, caller: Caller, data: Any, parameters: Mapping[str, str]
    ) -> None:
        """Return if the caller may send this command. Raises `Forbidden`, `Unauthorized`."""
        if caller.channels is not None:
            raise Forbidden("this ticket is for channels alone")
        self._permissions.check_command(route, caller, data, parameters)

    def check_channel(self, name: str, caller: Caller, action: Action = Action.SUBSCRIBE) -> str:
        """Return `name` if there is this channel and the caller may do this with it.

        Whose a command's own channel is, only the log knows: see `check_owner`. No rule is about
        it, so where there is authentication nobody publishes to it.

        Raises:
            BadRequest: there can be no such channel.
            UnknownChannel: no configured pattern covers it.
            Forbidden, Unauthorized: the caller may not.
        """
        if caller.channels is not None and name not in caller.channels:
            raise Forbidden("this ticket is for other channels")
        match = self._channels.match(check_name(name))
        if match is None:
            raise UnknownChannel(f"no configured channel pattern covers {name!r}")
        if match.config.pattern != STATUS_PATTERN or action is Action.PUBLISH:
            self._permissions.check_channel(action, name, match, caller)
        return name

    def reserved(
        self, names: Sequence[str], after: Position | str | None, caller: Caller
    ) -> frozenset[str]:
        """Return those of the channels whose history is not for the caller, who subscribes to them.

        Raises `Forbidden`, `Unauthorized`: all of the history of one is asked for.
        """
        found = set()
        for name in names if after is not None else ():
            try:
                self.check_channel(name, caller, Action.HISTORY)
            except (Forbidden, Unauthorized):
                if after == EARLIEST:
                    raise
                found.add(name)
        return frozenset(found)

    def needs_owner(self, name: str) -> bool:
        """Return whether a channel is for one principal alone: a command's own, for its sender."""
        match = self._channels.match(name) if self._permissions.secured else None
        return match is not None and match.config.pattern == STATUS_PATTERN

    def owns(self, caller: Caller, owner: str | None) -> bool:
        """Return whether what is `owner`'s is the caller's."""
        return not self._permissions.secured or owner == caller.principal.name

    async def check_owner(self, channels: Sequence[str], caller: Caller) -> None:
        """Return if those of the channels that are commands' own are of the caller's commands.

        Raises:
            Forbidden: one is not, or there is no such command: who asks is not told which.
            Overloaded, BrokerUnavailable: it cannot be found out now.
        """
        ids = [name.partition(":")[2] for name in channels if self.needs_owner(name)]
        if ids:
            async with self._admission.admitted():
                owners = await self._streams.owners(ids)
            if not all(self.owns(caller, owner) for owner in owners):
                raise Forbidden("you may follow the commands that you sent yourself")
