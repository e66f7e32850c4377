"""A small gateway without doors: commands are posted straight to the log, workers run for real."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from gateway.broker.broker import Broker
from gateway.broker.client import Clients
from gateway.broker.keys import Keys
from gateway.commands import (
    FINAL,
    CommandStatus,
    Envelope,
    Status,
    channel_of,
    life_event,
)
from gateway.config import (
    BrokerConfig,
    ChannelConfig,
    CommandConfig,
    Config,
    FeedConfig,
    HistoryConfig,
    WorkerConfig,
)
from gateway.errors import UnknownCommand
from gateway.events import new_id, now
from gateway.policy.compiler import Policy
from gateway.policy.publishing import Publisher
from gateway.settings import Seconds
from gateway.worker.consumer import Worker
from gateway.worker.loading import Handlers, handlers_of
from tests.servers import eventually

STREAM = "work"
TYPE = "do"
LEASE = 1.5
"""Seconds; short, so that a test need not wait for long, and long for a busy machine."""


def config_of(broker: BrokerConfig, **worker: Any) -> Config:
    """One stream with commands of the type `do`; all events go to the channel `log`."""
    return Config(
        broker=broker,
        commands=[CommandConfig(path="/do", type=TYPE, stream=STREAM)],
        channels=[ChannelConfig(pattern="log", history=HistoryConfig(size=100_000))],
        feeds=[FeedConfig(type="*", channels=["'log'"])],
        worker=WorkerConfig(**{"lease": Seconds(LEASE), "shutdown": Seconds(5)} | worker),
    )


class Stage:
    """The log of one test, what is posted to it and what can be read out of it."""

    def __init__(self, config: Config, clients: Clients) -> None:
        self.config = config
        self.clients = clients
        self.policy = Policy.of(config)
        self.broker = Broker(config.broker, clients)
        self.keys = Keys(config.broker.namespace)
        self.redis = clients.commands
        self.publisher = Publisher(self.policy.feeds, self.policy.channels)

    async def post(
        self,
        data: Any = None,
        *,
        key: str | None = None,
        type: str = TYPE,
        raw: bytes = b"",
        **more: Any,
    ) -> str:
        """Append a command as the dispatcher does, and return its id."""
        envelope = Envelope(
            id=new_id(),
            type=type,
            source="/do",
            time=now(),
            partitionkey=key,
            data=msgspec.Raw(raw or msgspec.json.encode(data)),
            **more,
        )
        status = CommandStatus(
            id=envelope.id, type=type, status=Status.ACCEPTED, attempts=0, accepted_at=envelope.time
        )
        event = life_event(status, envelope, time=envelope.time)
        accepted = self.publisher.publication(channel_of(envelope.id), event)
        encoded = msgspec.json.encode(envelope)
        await self.broker.commands.accept(STREAM, envelope, encoded, accepted)
        return envelope.id

    def worker(self, *functions: Any, handlers: Handlers | None = None) -> Worker:
        """Return a worker that has these functions, or these handlers."""
        return Worker(self.broker, handlers or handlers_of(*functions), self.policy, self.config)

    @asynccontextmanager
    async def working(self, *functions: Any) -> AsyncIterator[Worker]:
        """Run a worker for as long as the block lasts, then stop it gracefully."""
        worker = self.worker(*functions)
        running = asyncio.create_task(worker.run())
        try:
            yield worker
        finally:
            worker.stop()
            await running

    async def status(self, command_id: str) -> CommandStatus | None:
        """Return what is known of a command."""
        try:
            return await self.broker.commands.status(command_id)
        except UnknownCommand:
            return None

    async def outcome(self, command_id: str, *, within: float = 30) -> CommandStatus:
        """Wait until a command is in a final state, and return its status."""

        async def final() -> Any:
            status = await self.status(command_id)
            return status if status and status.status in FINAL else None

        status: CommandStatus = await eventually(
            final, within=within, reason=f"{command_id} came to its end"
        )
        return status

    async def outcomes(self, ids: Iterable[str], *, within: float = 30) -> None:
        """Wait until all these commands are in a final state."""
        for id in ids:
            await self.outcome(id, within=within)

    async def drained(self, *, within: float = 30) -> None:
        """Wait until every command that was posted is settled."""

        async def empty() -> bool:
            return await self.backlog() == 0

        await eventually(empty, within=within, reason="all commands were settled")

    async def backlog(self) -> int:
        """Commands that are not settled."""
        pipe = self.redis.pipeline(transaction=False)
        for partition in range(self.config.broker.partitions):
            pipe.xlen(self.keys.commands(STREAM, partition))
        return sum(await pipe.execute())

    async def entries(self, key: str) -> list[tuple[bytes, dict[bytes, bytes]]]:
        """Return the entries of a stream, oldest first."""
        found: Any = await self.redis.xrange(key)
        return list(found)

    async def log(self) -> list[dict[str, Any]]:
        """Return every event of the log, in its order."""
        entries = await self.entries(self.keys.events)
        return [msgspec.json.decode(fields[b"e"]) for _, fields in entries if fields[b"e"]]

    async def done(self) -> list[Any]:
        """Return the data of the events `done`, in their order."""
        return [event["data"] for event in await self.log() if event["type"] == "done"]

    async def life(self, command_id: str) -> list[str]:
        """Return what was told of a command's life on its own channel."""
        entries = await self.entries(self.keys.history(channel_of(command_id)))
        events = [msgspec.json.decode(fields[b"e"]) for _, fields in entries]
        return [event["type"].removeprefix("command.") for event in events]

    async def dead_letters(self) -> list[dict[str, Any]]:
        """Return all dead letters, oldest first."""
        ids = [fields[b"i"].decode() for _, fields in await self.entries(self.keys.dead_letters)]
        kept = [await self.broker.dead_letters.get(id) for id in ids]
        return [msgspec.json.decode(msgspec.json.encode(each.document())) for each in kept]

    async def holders(self) -> Counter[str]:
        """Return how many partitions each worker holds."""
        names = [self.keys.lease(STREAM, each) for each in range(self.config.broker.partitions)]
        found: list[Any] = await self.redis.mget(names)
        return Counter(token.decode() for token in found if token)

    async def held(self, workers: int) -> Counter[str]:
        """Wait until every partition is held and they are shared out evenly."""

        async def fair() -> Any:
            holders = await self.holders()
            share = -(-self.config.broker.partitions // workers)
            whole = holders.total() == self.config.broker.partitions
            return (
                holders
                if whole and len(holders) == workers and max(holders.values()) <= share
                else None
            )

        holders: Counter[str] = await eventually(
            fair, within=30, reason=f"{workers} workers shared the partitions"
        )
        return holders


async def empty(worker: Worker) -> None:
    """Wait until a worker has nothing in its hands, and has not lost count of it."""
    held = worker._holdings.held
    await eventually(
        lambda: all(each.size == each.bytes == 0 and each.idle for each in held.values()),
        within=30,
        reason="nothing was left in the worker's hands",
    )


def check_log(events: Sequence[dict[str, Any]], posted: dict[str, tuple[str, int]]) -> None:
    """Check that each command was done exactly once, and those of one key in their order.

    `posted` gives key and number of each command; its handler returns one event `done` with both.
    """
    ids = Counter(event["id"] for event in events)
    assert [id for id, count in ids.items() if count > 1] == []
    done = [event for event in events if event["type"] == "done"]
    assert Counter(event["causationid"] for event in done) == Counter(list(posted))
    succeeded = [event["subject"] for event in events if event["type"] == "command.succeeded"]
    assert Counter(succeeded) == Counter(list(posted))
    orders: dict[str, list[int]] = defaultdict(list)
    for event in done:
        assert [event["data"]["key"], event["data"]["number"]] == list(posted[event["causationid"]])
        orders[event["data"]["key"]].append(event["data"]["number"])
    assert {key: numbers for key, numbers in orders.items() if numbers != sorted(numbers)} == {}
