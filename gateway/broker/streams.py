"""The command streams: a fixed number of partitions each, so that each key keeps its order.

A partition is read by one worker at a time (see `leases`). A command stays in its partition until
its outcome is committed: the length of the partition is its backlog.
"""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from gateway.broker.client import translated
from gateway.broker.eventlog import Lost, publication_arguments
from gateway.broker.keys import Keys
from gateway.broker.line import Line
from gateway.broker.scripts import Pipeline
from gateway.commands import CommandStatus, Envelope, Status
from gateway.errors import KeyReused, StartError, StreamFull, UnknownCommand
from gateway.events import Publication
from gateway.idempotency import NONE, Identity

GROUP = "workers"
"""The consumer group of every command stream: each command is handled by one of its consumers."""

CONSUMER = "holder"
"""The one consumer of each partition: whoever holds the lease. What its predecessor left pending
is pending for it, without a claim, and no consumer is ever left over to be deleted."""

PAGE = 500
"""Pending commands that are read in one step."""

PartitionId = tuple[str, int]
"""A stream and the number of one of its partitions."""


def partition_of(key: str, partitions: int) -> int:
    """Return the partition of a key; the same in every process and version."""
    return zlib.crc32(key.encode()) % partitions


class Delivery(NamedTuple):
    """A command as a worker reads it."""

    stream: str
    partition: int
    entry: bytes
    """The id of its entry."""
    envelope: bytes


class Taken(NamedTuple):
    """What a worker got of the partitions that it asked for."""

    deliveries: list[Delivery]
    foreign: list[PartitionId]
    """Those whose lease is not this worker's."""


class Reclaimed(NamedTuple):
    """What earlier holders of a partition left, oldest first."""

    deliveries: list[Delivery]
    newest: bytes
    """The id of the newest entry that any of them took."""


class CommandStreams:
    """Appends commands and hands them to workers; what those do with them is in `commits`."""

    def __init__(
        self,
        redis: Redis,
        pipeline: Pipeline,
        syncing: Pipeline,
        keys: Keys,
        *,
        partitions: int,
        log_size: int,
        identity_ttl_ms: int,
        max_backlog: int,
    ) -> None:
        self._redis = redis
        self._pipeline = pipeline
        self._syncing = syncing
        self._keys = keys
        self.partitions = partitions
        self._log_size = log_size
        self._identity_ttl_ms = identity_ttl_ms
        self._max_backlog = max_backlog

    async def open(self, streams: Sequence[str]) -> None:
        """Make the streams ready: their consumer groups, and the number of their partitions.

        Raises:
            StartError: if a stream has another number of partitions, which would break the order.
            BrokerUnavailable: the broker cannot be reached.
        """
        with translated():
            for stream in streams:
                await self._fix_partitions(stream)
                for partition in range(self.partitions):
                    await self._create_group(self._keys.commands(stream, partition))

    async def _fix_partitions(self, stream: str) -> None:
        await self._redis.hsetnx(self._keys.partitions, stream, str(self.partitions))
        found = int(await self._redis.hget(self._keys.partitions, stream) or 0)
        if found != self.partitions:
            raise StartError(
                f"expected {found} partitions for the stream {stream!r}, as it was created with, "
                f"but [broker] partitions is {self.partitions}"
            )

    async def _create_group(self, name: str) -> None:
        try:
            await self._redis.xgroup_create(name, GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    async def accept(
        self,
        stream: str,
        envelope: Envelope,
        encoded: bytes,
        accepted: Publication,
        *,
        identity: Identity = NONE,
        owner: str = "",
        sync: bool = False,
    ) -> str:
        """Append a command, open its status and publish that it was accepted: one step.

        `owner` is who may ask for its status; empty for nobody in particular.

        Returns its id; or that of the command that was accepted earlier under the same identity,
        and then nothing is appended. With `sync` it returns when the server's disk has the command.

        Raises:
            KeyReused: something else was accepted under this identity.
            StreamFull: too many commands wait in the partition.
            BrokerUnavailable: it is then unknown whether the command is in the log.
        """
        partition = partition_of(envelope.partitionkey or envelope.id, self.partitions)
        names, arguments = publication_arguments(self._keys, [accepted])
        pipeline = self._syncing if sync else self._pipeline
        answer = await pipeline.call(
            "accept",
            [
                self._keys.log,
                self._keys.events,
                self._keys.commands(stream, partition),
                self._keys.status(envelope.id),
                self._keys.identity(identity.name),
                *names,
            ],
            [
                self._log_size,
                encoded,
                envelope.id,
                envelope.type,
                envelope.time,
                self._max_backlog,
                identity.fingerprint,
                self._identity_ttl_ms,
                owner,
                *arguments,
            ],
        )
        if answer == 0:
            raise KeyReused("expected the same command as before under this idempotency key")
        if answer == -1:
            raise StreamFull(f"{self._max_backlog} commands wait for a worker here already")
        return envelope.id if answer == 1 else answer.decode()

    async def status(self, command_id: str) -> CommandStatus:
        """Return the status resource. Raises `UnknownCommand`, `BrokerUnavailable`."""
        found = await self._pipeline.call("status", [self._keys.status(command_id)], [])
        if not found:
            raise UnknownCommand(f"there is no command {command_id[:80]!r}, or no longer")
        return _read_status(command_id, found)

    async def owners(self, command_ids: Sequence[str]) -> list[str | None]:
        """Return whose commands they are: empty for nobody's; None where there is none.

        One call, however many they are. Raises `BrokerUnavailable`.
        """
        keys = list(map(self._keys.status, command_ids))
        found = await self._pipeline.call("owners", keys, [])
        return [None if each is None else each.decode() for each in found]

    async def take(self, partitions: Mapping[PartitionId, int], token: str) -> Taken:
        """Take the new commands of partitions that this worker holds, each up to its own number.

        What it takes is pending until it is settled. Cancelling may leave it pending with nobody
        at work on it, until the partition is reclaimed.

        Raises:
            Lost: a partition is gone, because the log was emptied; `open` it again.
            BrokerUnavailable: it is then unknown what was taken; `reclaim` the partitions.
        """
        keys = [name for each in partitions for name in self._lease_and_stream(*each)]
        answers = await self._pipeline.call(
            "take", keys, [token, GROUP, CONSUMER, *partitions.values()]
        )
        taken = Taken([], [])
        for partition, answer in zip(partitions, answers, strict=True):
            if answer == 0:
                taken.foreign.append(partition)
            elif answer == -1:
                raise Lost(f"the partition {partition[1]} of {partition[0]!r} is gone")
            else:
                taken.deliveries.extend(_deliveries(partition, answer))
        return taken

    async def wait(
        self, line: Line, newest: Mapping[PartitionId, bytes], *, block_ms: int
    ) -> dict[PartitionId, list[Delivery]]:
        """Wait until a partition has a command after its newest known one, or for a time.

        Returns the first of each partition of which that is so, or the first two: then there may be
        more. Takes nothing, so it may be cancelled at any moment. Raises `BrokerUnavailable`.
        """
        names = {self._keys.commands(*each).encode(): each for each in newest}
        with translated():
            found = await line.call(
                "XREAD", "COUNT", 2, "BLOCK", block_ms, "STREAMS", *names, *newest.values()
            )
        return {
            names[name]: list(_deliveries(names[name], entries))
            for name, entries in (found or {}).items()
        }

    async def reclaim(self, partition: PartitionId, token: str) -> Reclaimed | None:
        """Return all commands of a partition that were taken and never settled.

        None if the lease is not this worker's. Raises `Lost`, `BrokerUnavailable`.
        """
        keys = [*self._lease_and_stream(*partition)]
        cursor, found = b"0-0", Reclaimed([], b"0-0")
        while True:
            answer = await self._pipeline.call(
                "reclaim", keys, [token, GROUP, CONSUMER, cursor, PAGE]
            )
            if answer == 0:
                return None
            if answer == -1:
                raise Lost(f"the partition {partition[1]} of {partition[0]!r} is gone")
            entries, newest = answer
            found.deliveries.extend(_deliveries(partition, entries))
            if len(entries) < PAGE:
                return found._replace(newest=newest)
            cursor = entries[-1][0]

    async def interrupted(self, command_ids: Sequence[str]) -> list[int]:
        """Return, for each command, the number of an attempt that was begun and never settled.

        0 where there is none. Raises `BrokerUnavailable`.
        """
        pipe = self._redis.pipeline(transaction=False)
        for command_id in command_ids:
            pipe.hmget(self._keys.status(command_id), "status", "attempts")
        with translated():
            answers = await pipe.execute()
        return [
            int(attempts or 0) if status == Status.STARTED.encode() else 0
            for status, attempts in answers
        ]

    async def read_again(self, delivery: Delivery) -> Delivery | None:
        """Return a command with its bytes; None if it is gone. Raises `BrokerUnavailable`."""
        stream, partition, entry, _ = delivery
        with translated():
            found: Any = await self._redis.xrange(
                self._keys.commands(stream, partition), entry, entry
            )
        return delivery._replace(envelope=found[0][1].get(b"e", b"")) if found else None

    def _lease_and_stream(self, stream: str, partition: int) -> tuple[str, str]:
        return self._keys.lease(stream, partition), self._keys.commands(stream, partition)


def _deliveries(partition: PartitionId, entries: list[Any]) -> Iterator[Delivery]:
    """Give the entries that still exist. One that holds no envelope is given with an empty one."""
    for entry, fields in entries:
        if fields is not None:
            values = dict(zip(fields[::2], fields[1::2], strict=True))
            yield Delivery(*partition, entry, values.get(b"e", b""))


def _read_status(command_id: str, found: list[bytes]) -> CommandStatus:
    text = {
        name.decode(): value.decode() for name, value in zip(found[::2], found[1::2], strict=True)
    }
    result = text.get("result")
    return CommandStatus(
        id=command_id,
        type=text.get("type", ""),
        status=Status(text["status"]),
        attempts=int(text["attempts"]),
        accepted_at=text.get("accepted_at", ""),
        finished_at=text.get("finished_at"),
        result=msgspec.json.decode(result) if result else None,
        error=text.get("error"),
    )
