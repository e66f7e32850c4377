"""The command streams: a fixed number of partitions each, so that each key keeps its order.

A partition is read by one worker at a time (see `leases`). A command stays in its partition until
its outcome is committed: the length of the partition is its backlog.
"""

import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from gateway.broker.client import translate
from gateway.broker.eventlog import Lost, Publication, publication_arguments
from gateway.broker.keys import Keys
from gateway.broker.scripts import Pipeline
from gateway.commands import CommandStatus, Envelope, Status
from gateway.errors import StartError, UnknownCommand

GROUP = "workers"
"""The consumer group of every command stream: each command is handled by one of its consumers."""


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


class Settlement(NamedTuple):
    """What came of an attempt."""

    status: Status
    done: bool
    """The command is finished: acknowledge it."""
    publications: Sequence[Publication]
    result: bytes = b""
    """JSON; empty for none."""
    error: str = ""
    finished_at: str = ""
    dead_letter: bytes = b""
    """JSON; empty for none."""


class CommandStreams:
    """Appends commands, hands them to workers and commits what came of them."""

    def __init__(
        self,
        redis: Redis,
        pipeline: Pipeline,
        keys: Keys,
        *,
        partitions: int,
        log_size: int,
        status_ttl_ms: int,
    ) -> None:
        self._redis = redis
        self._pipeline = pipeline
        self._keys = keys
        self.partitions = partitions
        self._log_size = log_size
        self._status_ttl_ms = status_ttl_ms

    async def open(self, streams: Sequence[str]) -> None:
        """Make the streams ready: their consumer groups, and the number of their partitions.

        Raises:
            StartError: if a stream has another number of partitions, which would break the order.
            BrokerUnavailable: the broker cannot be reached.
        """
        try:
            for stream in streams:
                await self._fix_partitions(stream)
                for partition in range(self.partitions):
                    await self._create_group(self._keys.commands(stream, partition))
        except (RedisError, OSError) as error:
            raise translate(error) from error

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
        self, stream: str, envelope: Envelope, encoded: bytes, accepted: Publication
    ) -> None:
        """Append a command, open its status and publish that it was accepted: one step.

        Raises:
            BrokerUnavailable: it is then unknown whether the command is in the log.
        """
        partition = partition_of(envelope.partitionkey or envelope.id, self.partitions)
        names, arguments = publication_arguments(self._keys, [accepted])
        await self._pipeline.call(
            "accept",
            [
                self._keys.log,
                self._keys.events,
                self._keys.commands(stream, partition),
                self._keys.status(envelope.id),
                *names,
            ],
            [self._log_size, encoded, envelope.type, envelope.time, *arguments],
        )

    async def status(self, command_id: str) -> CommandStatus:
        """Return the status resource. Raises `UnknownCommand`, `BrokerUnavailable`."""
        try:
            found = await self._redis.hgetall(self._keys.status(command_id))
        except (RedisError, OSError) as error:
            raise translate(error) from error
        if not found:
            raise UnknownCommand(f"there is no command {command_id!r}, or no longer")
        return _read_status(command_id, {name.decode(): value for name, value in found.items()})

    async def read(
        self,
        blocking: Redis,
        consumer: str,
        partitions: Sequence[tuple[str, int]],
        *,
        count: int,
        block_ms: int,
    ) -> list[Delivery]:
        """Wait for new commands of some partitions; up to `count` of each.

        Only the holder of a partition's lease may read it. Raises `BrokerUnavailable`, and
        `Lost` if a partition is gone (the log was emptied): `open` it again.
        """
        names = {self._keys.commands(*partition): partition for partition in partitions}
        try:
            answer = await blocking.xreadgroup(
                GROUP, consumer, dict.fromkeys(names, ">"), count=count, block=block_ms
            )
        except ResponseError as error:
            if "NOGROUP" in str(error) or "UNBLOCKED" in str(error):
                raise Lost(str(error)) from error
            raise translate(error) from error
        except (RedisError, OSError) as error:
            raise translate(error) from error
        return [
            Delivery(*names[name], entry, fields[b"e"])
            for name, entries in _by_stream(answer)
            for entry, fields in entries
            if fields
        ]

    async def reclaim(self, consumer: str, stream: str, partition: int) -> list[Delivery]:
        """Take over all commands of a partition that earlier holders left pending, oldest first.

        Only the holder of the lease may: it alone knows that nobody works on them any more.
        """
        name, cursor, found = self._keys.commands(stream, partition), b"0-0", []
        try:
            while True:
                cursor, entries, _ = await self._redis.xautoclaim(
                    name, GROUP, consumer, min_idle_time=0, start_id=cursor, count=500
                )
                found += [Delivery(stream, partition, id, f[b"e"]) for id, f in entries if f]
                if cursor == b"0-0":
                    await self._forget_others(name, consumer)
                    return found
        except (RedisError, OSError) as error:
            raise translate(error) from error

    async def _forget_others(self, name: str, consumer: str) -> None:
        """Delete consumers that have nothing pending any more."""
        for other in await self._redis.xinfo_consumers(name, GROUP):
            if other["name"].decode() != consumer and other["pending"] == 0:
                await self._redis.xgroup_delconsumer(name, GROUP, other["name"])

    async def start(
        self,
        delivery: Delivery,
        command_id: str,
        token: str,
        started: tuple[bytes, bytes],
        channel: Publication,
    ) -> int:
        """Count an attempt and publish that it started. Returns its number, from 1 on.

        `started` is the event before and after the number of the attempt; `channel` says where it
        goes (its `event` is not used). Returns 0 if the lease is no longer this worker's.
        """
        keys = self._keys
        answer: int = await self._pipeline.call(
            "start",
            [
                keys.log,
                keys.events,
                keys.lease(delivery.stream, delivery.partition),
                keys.status(command_id),
                keys.history(channel.channel),
                keys.floor(channel.channel),
            ],
            [self._log_size, token, channel.channel, *started, channel.size, channel.ttl_ms],
        )
        return answer

    async def settle(
        self, delivery: Delivery, command_id: str, token: str, settlement: Settlement
    ) -> bool:
        """Commit what came of an attempt: status, events, acknowledgement, in one atomic step.

        Returns False, with nothing changed, if the lease on the partition is no longer this
        worker's (its token is a fence) or the command was settled before.

        Raises:
            BrokerUnavailable: it is then unknown whether it was committed; it can be tried again.
        """
        keys = self._keys
        names, arguments = publication_arguments(keys, settlement.publications)
        answer = await self._pipeline.call(
            "settle",
            [
                keys.log,
                keys.events,
                keys.lease(delivery.stream, delivery.partition),
                keys.commands(delivery.stream, delivery.partition),
                keys.status(command_id),
                keys.dead_letters,
                *names,
            ],
            [
                self._log_size,
                token,
                GROUP,
                delivery.entry,
                int(settlement.done),
                settlement.status,
                settlement.result,
                settlement.error,
                settlement.finished_at,
                self._status_ttl_ms,
                settlement.dead_letter,
                *arguments,
            ],
        )
        return bool(answer)


def _by_stream(answer: Any) -> list[tuple[str, list[tuple[bytes, dict[bytes, bytes]]]]]:
    """Return the entries of an XREADGROUP by stream, which RESP 2 and 3 wrap differently."""
    if isinstance(answer, dict):
        return [(name.decode(), batches[0]) for name, batches in answer.items() if batches]
    return [(name.decode(), entries) for name, entries in answer or ()]


def _read_status(command_id: str, found: dict[str, bytes]) -> CommandStatus:
    result = found.get("result")
    error, finished_at = found.get("error"), found.get("finished_at")
    return CommandStatus(
        id=command_id,
        type=found.get("type", b"").decode(),
        status=Status(found["status"].decode()),
        attempts=int(found.get("attempts", 0)),
        accepted_at=found.get("accepted_at", b"").decode(),
        finished_at=finished_at.decode() if finished_at else None,
        result=msgspec.json.decode(result) if result else None,
        error=error.decode() if error else None,
    )
