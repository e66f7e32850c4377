"""The broker: the durable log with everything that is kept in it, as one process sees it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from gateway.broker.blocklist import BlockList
from gateway.broker.client import Clients, opened, translated
from gateway.broker.commits import Commits
from gateway.broker.deadletters import DeadLetters
from gateway.broker.eventlog import EventLog
from gateway.broker.figures import Figures
from gateway.broker.keys import Keys
from gateway.broker.leases import Leases
from gateway.broker.limits import SharedBuckets
from gateway.broker.roll import Roll
from gateway.broker.scripts import Pipeline
from gateway.broker.streams import CommandStreams
from gateway.broker.tickets import Tickets
from gateway.config import BrokerConfig
from gateway.errors import StartError

SYNC_MARGIN = 500
"""Milliseconds by which the server shall give up a flush earlier than its client gives up on it."""


class Broker:
    """Everything in the log, over the connections of one process."""

    def __init__(self, config: BrokerConfig, clients: Clients) -> None:
        self._clients = clients
        self._keys = Keys(config.namespace)
        self._pipeline = Pipeline(clients.commands)
        self._syncing = Pipeline(clients.commands, sync_ms=int(config.timeout * 1000) - SYNC_MARGIN)
        self.where = clients.url
        """The server's URL, without its password."""
        self.events = EventLog(
            clients.commands,
            clients.blocking(),
            self._pipeline,
            self._keys,
            size=config.log_size,
            identity_ttl_ms=int(config.idempotency_ttl * 1000),
        )
        self.commands = CommandStreams(
            clients.commands,
            self._pipeline,
            self._syncing,
            self._keys,
            partitions=config.partitions,
            log_size=config.log_size,
            identity_ttl_ms=int(config.idempotency_ttl * 1000),
            max_backlog=config.max_backlog,
        )
        self.commits = Commits(
            self._pipeline,
            self._keys,
            log_size=config.log_size,
            status_ttl_ms=int(config.status_ttl * 1000),
            max_dead_letters=config.max_dead_letters,
        )
        self.dead_letters = DeadLetters(
            clients.commands,
            self._pipeline,
            self._keys,
            self.commands,
            log_size=config.log_size,
            max_backlog=config.max_backlog,
        )
        self.tickets = Tickets(self._pipeline, self._keys)
        self.blocks = BlockList(
            clients.commands, self._pipeline, self._keys, log_size=config.log_size
        )
        self.figures = Figures(clients.commands, self._keys)
        self.buckets = SharedBuckets(self._pipeline, self._keys)

    async def check_sync(self) -> None:
        """Find out whether the server can flush to its disk on demand. Raises `StartError`."""
        with translated():
            try:
                await self._clients.commands.waitaof(1, 0, 1)
            except ResponseError as error:
                raise StartError(
                    'durability = "fsync" needs Redis 7.2 or newer or Valkey, with appendonly yes, '
                    f"but the server says: {error}"
                ) from error

    async def probe(self) -> None:
        """Ask for a write that matters to nobody. Raises `BrokerUnavailable`."""
        await self._pipeline.call("probe", [self._keys.probe], [])

    def blocking(self) -> Redis:
        """Return a client of its own for reads that block."""
        return self._clients.blocking()

    def roll(self, node: str) -> Roll:
        """Return the page of one serving process in the roll of all."""
        return Roll(self._pipeline, self._keys, node)

    def leases(self, worker: str, *, ttl: float) -> Leases:
        """Return the leases of one worker; each lasts `ttl` seconds unless it is renewed."""
        return Leases(self._pipeline, self._keys, worker=worker, ttl_ms=int(ttl * 1000))


@asynccontextmanager
async def open_broker(config: BrokerConfig) -> AsyncIterator[Broker]:
    """Give the configured log, or the one on the embedded server. Raises `StartError`."""
    async with opened(config) as clients:
        yield Broker(config, clients)
