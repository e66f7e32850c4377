"""The event log: one stream in one order, and beside it what each channel retains."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from gateway.broker.client import translated
from gateway.broker.keys import Keys
from gateway.broker.line import Line
from gateway.broker.scripts import Argument, Pipeline
from gateway.channels import EARLIEST, EntryId, Position
from gateway.errors import KeyReused
from gateway.events import Publication, Retention
from gateway.idempotency import Identity

GROUP_PREFIX = "node-"
NODE_TTL = 30
"""Seconds without a sign of life after which a serving process counts as dead."""

PAGE_BYTES = 256 << 10
"""Bytes of events that are read back at a time: what is read is held in memory."""

FIRST = EntryId(0, 0)


class Entry(NamedTuple):
    """One event as it comes out of the log."""

    id: bytes
    channel: bytes
    event: bytes
    number: int
    """Counts all entries of the log without a hole: a reader knows by it that it missed some."""
    key: bytes = b""
    """The conflation key; empty for none."""


class Joined(NamedTuple):
    """Where a serving process begins to read."""

    epoch: str
    after: EntryId
    """The entry after which it reads."""
    last: EntryId
    """The newest entry of the log."""
    number: int | None
    """Of the entry `after`; None where the reader goes on from a position of its own."""
    known: bool
    """The log has the entry `after`. If not it lost its end: what is newer does not follow it."""


class Page(NamedTuple):
    """What a channel retains after a position."""

    epoch: str
    last: EntryId
    """The newest entry of the log at the time of reading: everything up to it is accounted for."""
    after: EntryId
    """Where the reading began: a position that is recoverable itself."""
    recovered: bool
    entries: list[tuple[bytes, bytes]]
    """Entry id and event, oldest first."""
    more: bool
    """Perhaps more is retained after the last of the entries; if not, they are all."""


class Lost(Exception):
    """A stream or its consumer group is gone: the log was emptied or replaced."""


@contextmanager
def lost() -> Iterator[None]:
    """Raise `Lost` where the server says that a stream or a group is not there."""
    try:
        yield
    except ResponseError as error:
        if any(sign in str(error) for sign in _SIGNS_OF_LOSS):
            raise Lost(str(error)) from error
        raise


_SIGNS_OF_LOSS = ("NOGROUP", "UNBLOCKED", "no such key", "requires the key to exist")


class EventLog:
    """Appends events, tails the log and reads back what channels retain."""

    def __init__(
        self,
        redis: Redis,
        blocking: Redis,
        pipeline: Pipeline,
        keys: Keys,
        *,
        size: int,
        identity_ttl_ms: int,
    ) -> None:
        self._redis = redis
        self._tail = Line(blocking)
        self._pipeline = pipeline
        self._keys = keys
        self.size = size
        self._identity_ttl_ms = identity_ttl_ms

    async def append(self, publications: Sequence[Publication]) -> list[bytes]:
        """Append events, all or none, and return the ids of their entries.

        Raises:
            BrokerUnavailable: it is then unknown whether they are in the log.
        """
        keys, arguments = publication_arguments(self._keys, publications)
        ids: list[bytes] = await self._pipeline.call(
            "append", [self._keys.log, self._keys.events, *keys], [self.size, *arguments]
        )
        return ids

    async def publish(self, events: Sequence[tuple[Identity, Sequence[Publication]]]) -> None:
        """Append events of producers, all or none; those that were appended before are left out.

        Raises:
            KeyReused: an event is another than what was appended under its identity.
            BrokerUnavailable: it is then unknown whether they are in the log; ask again.
        """
        keys = [self._keys.log, self._keys.events]
        arguments: list[Argument] = [self.size, self._identity_ttl_ms]
        seen: dict[str, str] = {}
        for number, (identity, publications) in enumerate(events, 1):
            if seen.setdefault(identity.name, identity.fingerprint) != identity.fingerprint:
                raise _reused(number)
            names, values = publication_arguments(self._keys, publications)
            keys += (self._keys.identity(identity.name), *names)
            arguments += (identity.fingerprint, len(publications), *values)
        if other := await self._pipeline.call("publish", keys, arguments):
            raise _reused(other)

    async def retain(self, ttls_ms: Mapping[str, int]) -> dict[str, int]:
        """Note for how long channels keep their events from now on, by pattern.

        Returns for each the moment (ms) from which on events are known to be kept for so long.
        Raises `BrokerUnavailable`.
        """
        keys = [self._keys.retention, self._keys.log]
        since = await self._pipeline.call(
            "retain", keys, [each for pair in ttls_ms.items() for each in pair]
        )
        return dict(zip(ttls_ms, since, strict=True))

    async def read_history(
        self,
        channel: str,
        after: Position | str,
        *,
        retention: Retention,
        count: int,
        enough: int = PAGE_BYTES,
        reach_ms: int | None = None,
    ) -> Page:
        """Return up to `count` retained events of a channel after a position.

        The events stop with the one that makes them `enough` bytes. With `reach_ms`, a position
        that is so much older than the log's end is as good as none, and whoever has none begins at
        that end. Raises `BrokerUnavailable`.
        """
        epoch, start = ("", FIRST) if isinstance(after, str) else (after.epoch, after.id)
        assert isinstance(after, Position) or after == EARLIEST
        keys = self._keys
        answer = await self._pipeline.call(
            "resume",
            [keys.log, keys.events, keys.history(channel), keys.floor(channel)],
            [
                *(epoch, start.ms, start.seq, *retention, count, enough),
                "" if reach_ms is None else reach_ms,
            ],
        )
        found, last, began, recovered, more, entries = answer
        return Page(
            found.decode(),
            EntryId.parse(last),
            EntryId.parse(began),
            bool(recovered),
            [(entry, fields[1]) for entry, fields in entries],
            bool(more),
        )

    async def join(self, node: str, after: EntryId | None = None) -> Joined:
        """Give a serving process a consumer group of its own, so that the broker shows its lag.

        `after` takes up the reading at that entry instead of the end of the log.
        """
        await self.sign_of_life(node)
        epoch, start, last, count, known = await self._pipeline.call(
            "join", [self._keys.log, self._keys.events], [GROUP_PREFIX + node, str(after or "")]
        )
        begin, end = EntryId.parse(start), EntryId.parse(last)
        number = int(count) if begin == end else None
        return Joined(epoch.decode(), begin, end, number, bool(known))

    async def read(self, node: str, *, count: int, block_ms: int) -> list[Entry]:
        """Wait for entries that the node has not read yet, and return them in order.

        Cancelling is safe: what was read and not returned is read again after the next `join`.

        Raises:
            Lost: the node's group is gone; `join` again.
            BrokerUnavailable: the broker cannot be reached.
        """
        with translated(), lost():
            answer = await self._tail.call(
                *("XREADGROUP", "GROUP", GROUP_PREFIX + node, node, "COUNT", count),
                *("BLOCK", block_ms, "NOACK", "STREAMS", self._keys.events, ">"),
            )
        if not answer:
            return []
        (entries,) = answer.values()
        return [_entry(id, fields) for id, fields in entries]

    async def tick(self, idle_ms: int) -> None:
        """Append an entry for nobody if the log was idle, so that positions stay young."""
        keys = self._keys
        await self._pipeline.call("tick", [keys.log, keys.events], [self.size, idle_ms])

    async def sign_of_life(self, node: str) -> None:
        """Say that this serving process lives; forget the groups of those that no longer do."""
        with translated():
            await self._redis.set(self._keys.node(node), 1, ex=NODE_TTL)

    async def reap(self) -> list[str]:
        """Destroy the consumer groups of serving processes that died, and return their names.

        Raises `Lost`, `BrokerUnavailable`.
        """
        dead = []
        with translated(), lost():
            groups = await self._redis.xinfo_groups(self._keys.events)
            for group in groups:
                name = group["name"].decode()
                node = name.removeprefix(GROUP_PREFIX)
                if node != name and not await self._redis.exists(self._keys.node(node)):
                    await self._redis.xgroup_destroy(self._keys.events, name)
                    dead.append(node)
        return dead

    async def leave(self, node: str) -> None:
        """Give the node's consumer group back. Raises `Lost`, `BrokerUnavailable`."""
        with translated(), lost():
            await self._redis.xgroup_destroy(self._keys.events, GROUP_PREFIX + node)
            await self._redis.delete(self._keys.node(node))


def _entry(id: bytes, fields: list[bytes]) -> Entry:
    """Read an entry: names and values, always in the order in which `append_entry` gives them."""
    key = fields[7] if len(fields) > 6 else b""
    return Entry(id, fields[1], fields[3], int(fields[5]), key)


def _reused(number: int) -> KeyReused:
    return KeyReused(
        f"expected event {number} to be the same as before under its source and id, or a new id"
    )


def publication_arguments(
    keys: Keys, publications: Sequence[Publication]
) -> tuple[list[str], list[Argument]]:
    """Return the keys and the arguments by which the scripts know events to append."""
    names: list[str] = []
    arguments: list[Argument] = []
    for publication in publications:
        names += (keys.history(publication.channel), keys.floor(publication.channel))
        arguments += publication
    return names, arguments
