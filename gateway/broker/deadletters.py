"""Dead letters: commands given up on, with all that is needed to see why and to send them again.

They are the entries of one stream. Only as many are kept as are configured; beyond, the oldest go.
"""

import base64
from collections.abc import AsyncIterator, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

import msgspec
from redis.asyncio import Redis

from gateway.broker.client import translated
from gateway.broker.eventlog import publication_arguments
from gateway.broker.keys import Keys
from gateway.broker.scripts import Pipeline
from gateway.broker.streams import CommandStreams, partition_of
from gateway.commands import Envelope
from gateway.errors import StreamFull, UnknownDeadLetter
from gateway.events import Publication

SCANNED = 100
"""Dead letters that the server looks at in one step. It does nothing else meanwhile."""


class Reason(StrEnum):
    """Why a command was given up on."""

    ATTEMPTS = "attempts-used-up"
    """The last attempt that it was allowed failed as well."""
    NEVER = "never-retried"
    """It raised what its handler says must not be tried again."""
    CRASH = "worker-died"
    """The worker of its last attempt died before that was settled."""
    DATA = "bad-data"
    """Its data is not what the handler's annotation says."""
    ANSWER = "bad-answer"
    """What the handler returned cannot be encoded, or goes to no channel."""
    HANDLER = "no-handler"
    """The worker that read its stream has no handler of its type."""
    ENVELOPE = "bad-envelope"
    """Its entry is not a command at all."""


class Error(msgspec.Struct, frozen=True):
    """What was raised."""

    type: str
    message: str
    traceback: str = ""

    def __str__(self) -> str:
        return f"{self.type}: {self.message}" if self.message else self.type


class Failure(msgspec.Struct, frozen=True):
    """An attempt that failed."""

    attempt: int
    at: str
    """When that was seen. RFC 3339."""
    type: str
    """Of the exception; `WorkerDied` if the attempt was begun and never settled."""
    message: str


class DeadLetter(msgspec.Struct, frozen=True, omit_defaults=True):
    """A command given up on, but for its bytes."""

    id: str
    type: str
    stream: str
    partition: int
    reason: Reason
    error: Error
    attempts: int
    accepted_at: str
    dead_lettered_at: str
    key: str | None = None
    failures: Sequence[Failure] = ()
    """The attempts that failed, oldest first: the newest hundred of them."""


class Filter(NamedTuple):
    """Which dead letters; each may be empty for any."""

    type: str = ""
    stream: str = ""
    reason: str = ""


ANY = Filter()


class Page(NamedTuple):
    """Some dead letters, newest first."""

    letters: list[DeadLetter]
    after: str | None
    """Where the next page begins; None at the end."""


class Kept(NamedTuple):
    """A dead letter as it is kept."""

    letter: DeadLetter
    envelope: bytes
    """The original bytes of the command's entry."""
    entry: str
    """The id of its own entry."""

    def document(self) -> dict[str, Any]:
        """Return all of it, for JSON.

        `command` is the CloudEvent that was accepted; what is no JSON is in `command_base64`.
        """
        told: dict[str, Any] = msgspec.to_builtins(self.letter)
        try:
            msgspec.json.decode(self.envelope)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            told["command_base64"] = base64.b64encode(self.envelope).decode()
        else:
            told["command"] = msgspec.Raw(self.envelope)
        return told


class DeadLetters:
    """Lists, shows, redrives and discards. May be called concurrently, by many processes."""

    def __init__(
        self,
        redis: Redis,
        pipeline: Pipeline,
        keys: Keys,
        streams: CommandStreams,
        *,
        log_size: int,
        max_backlog: int,
    ) -> None:
        self._redis = redis
        self._pipeline = pipeline
        self._keys = keys
        self._streams = streams
        self._log_size = log_size
        self._max_backlog = max_backlog
        self._opened: set[str] = set()
        """Streams that were found ready, because many are often redriven at once."""

    async def count(self) -> int:
        """Return how many there are. Raises `BrokerUnavailable`."""
        with translated():
            count: int = await self._redis.xlen(self._keys.dead_letters)
        return count

    async def page(self, wanted: Filter = ANY, *, limit: int, after: str = "") -> Page:
        """Return up to `limit` of those that are wanted, newest first. Raises `BrokerUnavailable`.

        `after` is that of the page before.
        """
        letters: list[DeadLetter] = []
        while len(letters) < limit:
            found, last = await self._pipeline.call(
                "letters",
                [self._keys.dead_letters],
                [f"({after}" if after else "+", limit - len(letters), SCANNED, *wanted],
            )
            letters += [_decode(document) for _, document in found]
            after = last.decode()
            if not after:
                return Page(letters, None)
        return Page(letters, after)

    async def all(
        self, wanted: Filter = ANY, *, limit: int | None = None
    ) -> AsyncIterator[DeadLetter]:
        """Give those that are wanted, newest first, up to `limit`. Raises `BrokerUnavailable`."""
        after: str | None = ""
        while after is not None and limit != 0:
            size = SCANNED if limit is None else min(limit, SCANNED)
            letters, after = await self.page(wanted, limit=size, after=after)
            for letter in letters:
                yield letter
            if limit is not None:
                limit -= len(letters)

    async def get(self, command_id: str) -> Kept:
        """Return the dead letter of a command. Raises `UnknownDeadLetter`, `BrokerUnavailable`."""
        with translated():
            known: Any = await self._redis.hget(self._keys.dead_letter_index, command_id)
            entry = (known or b"").decode().partition(" ")[0]
            found: Any = entry and await self._redis.xrange(self._keys.dead_letters, entry, entry)
        if not found:
            raise unknown(command_id)
        fields = found[0][1]
        return Kept(_decode(fields[b"d"]), fields[b"e"], entry)

    async def redrive(self, kept: Kept, envelope: Envelope, to: str, accepted: Publication) -> None:
        """Append the command to the stream `to`, to the partition of its key, and drop its letter.

        It is the last of its key then. Its attempts go on counting where they were.

        Raises:
            UnknownDeadLetter: it is not there any more: somebody redrove or discarded it.
            StreamFull: too many commands wait in the partition; the letter stays.
            StartError: the stream has another number of partitions than is configured.
            BrokerUnavailable: it is then unknown whether it was done; it can be asked again.
        """
        letter, keys = kept.letter, self._keys
        if to not in self._opened:
            await self._streams.open([to])
            self._opened.add(to)
        partition = partition_of(envelope.partitionkey or envelope.id, self._streams.partitions)
        names, arguments = publication_arguments(keys, [accepted])
        answer = await self._pipeline.call(
            "redrive",
            [
                keys.log,
                keys.events,
                keys.dead_letters,
                keys.dead_letter_index,
                keys.dead_letter_counts,
                keys.commands(to, partition),
                keys.status(letter.id),
                *names,
            ],
            [
                self._log_size,
                letter.id,
                kept.entry,
                self._max_backlog,
                letter.type,
                letter.accepted_at,
                letter.attempts,
                b"\n".join(map(msgspec.json.encode, letter.failures)),
                *arguments,
            ],
        )
        if answer == 0:
            raise unknown(letter.id)
        if answer == -1:
            raise StreamFull(f"{self._max_backlog} commands wait for a worker of {to!r} already")

    async def discard(self, command_id: str) -> None:
        """Remove a dead letter for good. Raises `UnknownDeadLetter`, `BrokerUnavailable`."""
        keys = self._keys
        names = [keys.dead_letters, keys.dead_letter_index, keys.dead_letter_counts]
        if not await self._pipeline.call("discard", names, [command_id]):
            raise unknown(command_id)


_decode = msgspec.json.Decoder(DeadLetter).decode


def unknown(command_id: str) -> UnknownDeadLetter:
    return UnknownDeadLetter(f"there is no dead letter {command_id!r}, or no longer")
