"""The event log: one stream in one order, and beside it what each channel retains."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from gateway.broker.client import translated
from gateway.broker.keys import Keys
from gateway.broker.scripts import Argument, Pipeline
from gateway.broker.tail import Tail
from gateway.channels import EARLIEST, EntryId, Position
from gateway.events import Publication

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


class Joined(NamedTuple):
    """Where a serving process begins to read."""

    epoch: str
    after: EntryId
    """The entry after which it reads."""
    last: EntryId
    """The newest entry of the log."""
    number: int | None
    """Of the entry `after`; None where the reader goes on from a position of its own."""


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
        if "NOGROUP" in str(error) or "UNBLOCKED" in str(error):
            raise Lost(str(error)) from error
        raise


class EventLog:
    """Appends events, tails the log and reads back what channels retain."""

    def __init__(
        self, redis: Redis, blocking: Redis, pipeline: Pipeline, keys: Keys, *, size: int
    ) -> None:
        self._redis = redis
        self._tail = Tail(blocking)
        self._pipeline = pipeline
        self._keys = keys
        self.size = size

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

    async def read_history(
        self,
        channel: str,
        after: Position | str,
        *,
        ttl_ms: int,
        count: int,
        enough: int = PAGE_BYTES,
    ) -> Page:
        """Return up to `count` retained events of a channel after a position.

        `ttl_ms` is the channel's; 0 for one without history. The events stop with the one that
        makes them `enough` bytes. Raises `BrokerUnavailable`.
        """
        epoch, start = ("", FIRST) if isinstance(after, str) else (after.epoch, after.id)
        assert isinstance(after, Position) or after == EARLIEST
        keys = self._keys
        answer = await self._pipeline.call(
            "resume",
            [keys.log, keys.events, keys.history(channel), keys.floor(channel)],
            [epoch, start.ms, start.seq, ttl_ms, count, enough],
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
        epoch, start, last, count = await self._pipeline.call(
            "join", [self._keys.log, self._keys.events], [GROUP_PREFIX + node, str(after or "")]
        )
        begin, end = EntryId.parse(start), EntryId.parse(last)
        return Joined(epoch.decode(), begin, end, int(count) if begin == end else None)

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
        # Names and values of an entry's fields, always as `append_entry` gives them.
        return [Entry(id, channel, event, int(n)) for id, (_, channel, _, event, _, n) in entries]

    async def tick(self, idle_ms: int) -> None:
        """Append an entry for nobody if the log was idle, so that positions stay young."""
        keys = self._keys
        await self._pipeline.call("tick", [keys.log, keys.events], [self.size, idle_ms])

    async def sign_of_life(self, node: str) -> None:
        """Say that this serving process lives; forget the groups of those that no longer do."""
        with translated():
            await self._redis.set(self._keys.node(node), 1, ex=NODE_TTL)

    async def reap(self) -> list[str]:
        """Destroy the consumer groups of serving processes that died, and return their names."""
        dead = []
        with translated():
            groups = await self._redis.xinfo_groups(self._keys.events)
            for group in groups:
                name = group["name"].decode()
                node = name.removeprefix(GROUP_PREFIX)
                if node != name and not await self._redis.exists(self._keys.node(node)):
                    await self._redis.xgroup_destroy(self._keys.events, name)
                    dead.append(node)
        return dead

    async def leave(self, node: str) -> None:
        """Give the node's consumer group back."""
        with translated():
            await self._redis.xgroup_destroy(self._keys.events, GROUP_PREFIX + node)
            await self._redis.delete(self._keys.node(node))


def publication_arguments(
    keys: Keys, publications: Sequence[Publication]
) -> tuple[list[str], list[Argument]]:
    """Return the keys and the arguments by which the scripts know events to append."""
    names: list[str] = []
    arguments: list[Argument] = []
    for channel, event, size, ttl_ms in publications:
        names += (keys.history(channel), keys.floor(channel))
        arguments += (channel, event, size, ttl_ms)
    return names, arguments
