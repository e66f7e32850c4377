"""How much waits, and how far behind everybody is: for people to look at, cheap to read."""

from typing import Any

import msgspec
from redis.asyncio import Redis

from gateway.broker.client import translated
from gateway.broker.eventlog import GROUP_PREFIX
from gateway.broker.keys import Keys
from gateway.broker.streams import GROUP


class StreamFigures(msgspec.Struct, frozen=True):
    """One command stream."""

    name: str
    partitions: int
    backlog: int
    """Commands that are not settled."""
    pending: int
    """Of these, those that a worker has taken."""
    workers: int
    """Workers that read it, and lived a moment ago."""
    dead_letters: int


class NodeFigures(msgspec.Struct, frozen=True):
    """One serving process."""

    name: str
    lag: int
    """Entries of the event log that it has not read yet, of those that are still there."""


class LogFigures(msgspec.Struct, frozen=True):
    """Everything."""

    streams: list[StreamFigures]
    nodes: list[NodeFigures]
    dead_letters: int


class Figures:
    """Reads the figures of one log."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys

    async def read(self) -> LogFigures:
        """Return the figures. They need not be of one moment. Raises `BrokerUnavailable`."""
        keys = self._keys
        with translated():
            pipe = self._redis.pipeline(transaction=False)
            pipe.time()
            pipe.hgetall(keys.partitions)
            pipe.hgetall(keys.dead_letter_counts)
            pipe.xlen(keys.dead_letters)
            pipe.exists(keys.events)
            (seconds, _), partitions, counts, dead_letters, is_begun = await pipe.execute()
            streams = [
                StreamFigures(
                    name.decode(),
                    int(count),
                    *await self._waiting(name.decode(), int(count), seconds * 1000),
                    dead_letters=int(counts.get(name, 0)),
                )
                for name, count in sorted(partitions.items())
            ]
            nodes = await self._nodes() if is_begun else []
        return LogFigures(streams, nodes, dead_letters)

    async def _waiting(self, name: str, partitions: int, now_ms: int) -> tuple[int, int, int]:
        """Return the backlog, the pending commands and the living workers of a stream."""
        pipe = self._redis.pipeline(transaction=False)
        names = [self._keys.commands(name, partition) for partition in range(partitions)]
        for each in names:
            pipe.xlen(each)
        for each in names:
            pipe.xpending(each, GROUP)
        pipe.zcount(self._keys.workers(name), now_ms, "+inf")
        answers: list[Any] = await pipe.execute(raise_on_error=False)
        backlog, pending = answers[:partitions], answers[partitions:-1]
        taken = [each["pending"] for each in pending if isinstance(each, dict)]  # or no such group
        return sum(backlog), sum(taken), answers[-1]

    async def _nodes(self) -> list[NodeFigures]:
        groups: Any = await self._redis.xinfo_groups(self._keys.events)
        read = {
            group["name"].decode(): group["last-delivered-id"].decode()
            for group in groups
            if group["name"].startswith(GROUP_PREFIX.encode())
        }
        pipe = self._redis.pipeline(transaction=False)
        pipe.hget(self._keys.log, "count")
        for last in read.values():
            pipe.xrange(self._keys.events, f"({last}", "+", count=1)
        count, *following = await pipe.execute()
        # Entries are numbered. The group's own `lag` is unknown whenever it was set to an id.
        return [
            NodeFigures(
                name.removeprefix(GROUP_PREFIX),
                int(count) - int(unread[0][1][b"n"]) + 1 if unread else 0,
            )
            for name, unread in zip(read, following, strict=True)
        ]
