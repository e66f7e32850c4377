"""Sentinels: which server holds the log now, and connections that follow it.

A Sentinel watches a master and its replicas; when the master dies it promotes one of them. Every
connection asks anew where the master is when it opens. As soon as it is known to be elsewhere, all
connections to the former one are closed, also those in use: it may be a host that died without a
word, or one that still takes writes which are lost when it comes back as a replica.

redis-py's own pool for this asks one Sentinel after the other, so that a silent one costs a
timeout, leaves alone what is in use at the former master, and cannot let calls wait their turn.
"""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple
from weakref import WeakSet

from redis.asyncio import Redis
from redis.exceptions import ConnectionError, ReadOnlyError, RedisError

from gateway.broker.address import host_and_port
from gateway.broker.connections import Closable, OverTCP, OverTLS

PACE = 1.0
"""Seconds between two looks at where the master is. Whoever has to connect looks at once."""

logger = logging.getLogger(__name__)


class NoMaster(ConnectionError):
    """No Sentinel says where the master is; the cause is what one of them answered instead."""


class Master(NamedTuple):
    """What a Sentinel says of the master."""

    epoch: int
    """Of the failover that made it one: a higher one is newer."""
    host: str
    port: int

    def __str__(self) -> str:
        return host_and_port(self.host, self.port)


class Sentinels:
    """Those who know where the master is, and all connections to it."""

    def __init__(self, name: str, sentinels: Sequence[Redis]) -> None:
        """`name` is that under which they watch the master."""
        self.name = name
        self.master: Master | None = None
        """As of the last answer; None before the first."""
        self._sentinels = sentinels
        self._connections: WeakSet[_Following] = WeakSet()

    async def locate(self, *, thorough: bool = False) -> Master:
        """Return where the master is. Closes the connections to a former one.

        All Sentinels are asked at once. The first decides that knows of a newer failover or, unless
        `thorough`, confirms what is known. None decides alone that knows less: it may have been cut
        off from the others. While none answers, what is known stands.

        Cancelling is safe. Raises `NoMaster` if nothing is known yet.
        """
        await self._ask_all(thorough)
        master = self.master
        assert master is not None
        for connection in tuple(self._connections):
            if (connection.host, connection.port) != (master.host, master.port):
                await connection.disconnect(nowait=True)
        return master

    async def follow(self) -> None:
        """Look where the master is, again and again, until cancelled."""
        while True:
            await asyncio.sleep(PACE)
            with suppress(RedisError, OSError):  # whoever needs the master is told
                await self.locate(thorough=True)

    def opens(self, connection: "_Following") -> None:
        """Remember a connection, to close it when the master is elsewhere."""
        self._connections.add(connection)

    async def _ask_all(self, thorough: bool) -> None:
        before = self.master
        asking = [asyncio.create_task(self._ask(each)) for each in self._sentinels]
        answers: list[Master] = []
        refusal: Exception | None = None
        try:
            for answer in asyncio.as_completed(asking, timeout=PACE if thorough else None):
                try:
                    found = await answer
                except (RedisError, OSError) as error:
                    refusal = error
                    continue
                if self.master is None or found.epoch > self.master.epoch:
                    self._believe(found)
                    return
                if found == self.master and not thorough:
                    return
                answers.append(found)
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
        if self.master is None:
            raise NoMaster(f"no Sentinel knows the master {self.name!r}") from refusal
        if answers and self.master is before:  # if not, somebody else was told meanwhile
            self._believe(max(answers, key=lambda each: (each.epoch, each == before)))

    def _believe(self, found: Master) -> None:
        former, self.master = self.master, found
        if former and (former.host, former.port) != (found.host, found.port):
            logger.warning("the master %r is now at %s", self.name, found)

    async def _ask(self, sentinel: Redis) -> Master:
        state: Any = await sentinel.sentinel_master(self.name)
        return Master(int(state["config-epoch"]), str(state["ip"]), int(state["port"]))


class _Following(Closable):
    """A connection to whatever server is the master at the time when it opens."""

    host: str
    port: int

    def __init__(self, *, sentinels: Sentinels, **options: Any) -> None:
        super().__init__(**options)
        self._sentinels = sentinels

    async def _connect(self) -> None:
        _, self.host, self.port = await self._sentinels.locate()
        self._sentinels.opens(self)
        await super()._connect()  # type: ignore[safe-super, no-untyped-call]

    async def read_response(self, *args: Any, **options: Any) -> Any:
        """Read an answer. A replica's is the last: the next call asks where the master is."""
        try:
            return await super().read_response(*args, **options)
        except ReadOnlyError:
            await self.disconnect(nowait=True)
            raise


class FollowingOverTCP(_Following, OverTCP):
    pass


class FollowingOverTLS(_Following, OverTLS):
    pass
