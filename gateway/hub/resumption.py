"""From a position to the present, without a gap: replaying → live.

The connection's subscriptions are registered first and their events held. Then the history after
the position is read in portions and written, merged with what is held, in the order of the log and
each event once; when the last portion is out the connection goes live. A position is only ever
written when everything before it, on all channels of the connection, was written too.
"""

import asyncio
import random
from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING

from gateway.broker.eventlog import PAGE_BYTES, Entry
from gateway.channels import EntryId, Position
from gateway.errors import BrokerUnavailable, CloseCode
from gateway.hub.audience import Held
from gateway.hub.history import History, Portion
from gateway.hub.subscription import Connection, Request, Standing

if TYPE_CHECKING:
    from gateway.hub.hub import Hub

PIECE = 256 << 10
"""Bytes of several channels that are written at once; then the peer is waited for."""
TOGETHER = 1 << 20
"""Bytes of the past of all channels of a connection that are read ahead. The peer may take it as
slowly as it likes, and as many of them may come as the gateway takes."""


class _Wish:
    """A request that waits for its answer."""

    def __init__(self, request: Request, here: Position) -> None:
        self.request = request
        self.here = here
        """Where the hub stood when it began to hold events for it."""
        self.channels = set(request.channels)
        """Those that are still wanted."""

    def standing(self) -> Standing:
        """Where a channel begins of which no history is read: there nothing can be missing."""
        after = self.request.after
        return Standing(str(after if isinstance(after, Position) else self.here), recovered=True)


class Resumption:
    """Brings new subscriptions of one connection to the present, in the order of the requests."""

    def __init__(self, hub: "Hub", history: History, connection: Connection, *, limit: int) -> None:
        """`limit`: bytes of events to hold before the connection counts as too slow."""
        self._hub = hub
        self._history = history
        self._connection = connection
        self._waiting: list[_Wish | bytes] = []
        """Requests, and answers that must not overtake the answers to them."""
        self._unanswered: list[_Wish | bytes] = []
        """The same, while the history is being read."""
        self._wish_of: dict[str, _Wish] = {}
        """The one that waits, of each channel: a connection has a channel once."""
        self._portions: dict[str, Portion] = {}
        """What is being written."""
        self._held = Held(limit)
        self._cancelled = False

    def add(self, request: Request) -> None:
        """Hold the events of the request's channels from now on; replay them when it is time."""
        wish = _Wish(request, self._hub.here())
        self._waiting.append(wish)
        self._wish_of.update(dict.fromkeys(request.channels, wish))
        self._hub.hold(self._connection, request.channels, self._held)

    def drop(self, channel: str) -> None:
        """Write nothing of a channel any more."""
        wish = self._wish_of.pop(channel, None)
        if wish is not None:
            wish.channels.discard(channel)
        self._portions.pop(channel, None)
        name = channel.encode()
        self._held.drop(lambda entry: entry.channel == name)

    def answer(self, data: bytes) -> None:
        """Write an answer behind those to earlier requests."""
        if self._waiting:
            self._waiting.append(data)
        elif self._unanswered:
            self._unanswered.append(data)
        else:
            self._connection.write(data)

    def cancel(self) -> None:
        """The connection is gone: write nothing any more."""
        self._cancelled = True

    async def run(self) -> None:
        """Replay until no request is left, then let the connection go live."""
        while self._waiting and not self._cancelled:
            self._unanswered, self._waiting = self._waiting, []
            try:
                await self._replay()
            except BrokerUnavailable as error:
                self._refuse(error)
        if not self._cancelled:
            self._connection.write(self._encoded(self._held.take()))
            self._hub.release(self._connection)

    async def _replay(self) -> None:
        since = self._hub.here()
        places = {
            channel: wish.request.after
            for wish in _wishes(self._unanswered)
            if wish.request.after is not None
            for channel in wish.channels
        }
        reserved = {name for wish in _wishes(self._unanswered) for name in wish.request.reserved}
        portions = await self._read(places, since, reserved)
        if self._cancelled:
            return
        wanted = {channel for wish in _wishes(self._unanswered) for channel in wish.channels}
        self._portions = {channel: portions[channel] for channel in portions if channel in wanted}
        self._acknowledge(portions)
        written: EntryId | None = None
        while self._portions:
            reading = self._portions.values()
            bound = min((p.ids[-1] for p in reading if not p.complete), default=None)
            await self._hub.reached(bound or max(p.page.last for p in reading))
            if self._cancelled or self._interrupted():
                return
            self._forget_known()
            piece, written = self._due(written, bound)
            self._connection.write(piece)
            await self._connection.drained()
            if written is None:
                self._portions = {}
            elif written == bound:
                await self._read_on(bound, since)

    async def _read(
        self,
        places: dict[str, Position | str],
        since: Position,
        reserved: Collection[str] = (),
    ) -> dict[str, Portion]:
        enough = min(PAGE_BYTES, TOGETHER // max(len(places), len(self._portions), 1))
        portions = await asyncio.gather(
            *(
                self._history.read(
                    channel, at, since=since, enough=enough, reserved=channel in reserved
                )
                for channel, at in places.items()
            )
        )
        return dict(zip(places, portions, strict=True))

    async def _read_on(self, bound: EntryId, since: Position) -> None:
        """Read the next portion of each channel whose last one was written to its end."""
        here = Position(self._hub.epoch, bound)
        places: dict[str, Position | str] = {
            channel: here
            for channel, portion in self._portions.items()
            if not portion.complete and portion.ids[-1] == bound
        }
        for channel, portion in (await self._read(places, since)).items():
            if channel in self._portions:
                self._portions[channel] = portion
                if not portion.page.recovered:
                    self._give_up()  # trimmed while it was being read

    def _acknowledge(self, portions: dict[str, Portion]) -> None:
        """Answer what waits for it, in order."""
        answers, self._unanswered = self._unanswered, []
        for each in answers:
            if isinstance(each, bytes):
                self._connection.write(each)
                continue
            standings = {
                channel: portions[channel].standing() if channel in portions else each.standing()
                for channel in each.request.channels
            }
            self._connection.write(each.request.acknowledge(standings))

    def _refuse(self, error: BrokerUnavailable) -> None:
        """The history cannot be read: refuse who waits for an answer; others have to come back."""
        if self._cancelled:
            return
        if not self._unanswered:
            self._give_up()
            return
        refused, self._unanswered = self._unanswered, []
        for each in refused:
            if isinstance(each, bytes):
                self._connection.write(each)
                continue
            for channel in tuple(each.channels):
                self._hub.unsubscribe(self._connection, channel)
            each.request.refuse(error)

    def _interrupted(self) -> bool:
        """Tell whether the log was replaced while it was being read; then the peer begins anew."""
        if all(portion.page.epoch == self._hub.epoch for portion in self._portions.values()):
            return False
        self._give_up()
        return True

    def _give_up(self) -> None:
        """Let the peer come back with its position and be told what became of it."""
        if not self._cancelled:
            self._connection.goodbye(CloseCode.POSITION_LOST, random.randint(0, 1000))

    def _forget_known(self) -> None:
        """Drop what is held of before the places where the portions begin.

        A peer that comes from a process which was ahead of this one has it already.
        """
        starts = {name.encode(): portion.page.after for name, portion in self._portions.items()}
        self._held.drop(
            lambda entry: entry.channel in starts and _id(entry) <= starts[entry.channel]
        )

    def _due(self, written: EntryId | None, bound: EntryId | None) -> tuple[bytes, EntryId | None]:
        """Take the next piece of the portions and of what is held, after `written` up to `bound`.

        Returns it with the id up to which nothing is left to write; None where nothing is left.
        """
        encoding = self._connection.encoding
        unready = {name.encode() for wish in _wishes(self._waiting) for name in wish.channels}
        held = [
            entry
            for entry in self._held.entries
            if entry.channel not in unready and (bound is None or _id(entry) <= bound)
        ]
        if len(self._portions) == 1 and not held:
            (portion,) = self._portions.values()
            if written is None or not portion.ids or portion.ids[0] > written:
                return portion.joined(encoding), bound
        due = {
            id: data
            for portion in self._portions.values()
            for id, data in zip(portion.ids, portion.encoded(encoding), strict=True)
            if (written is None or id > written) and (bound is None or id <= bound)
        }
        for entry in held:
            due.setdefault(_id(entry), self._encoded([entry]))
        piece, size = [], 0
        for id in sorted(due):
            piece.append(due[id])
            size += len(due[id])
            if size >= PIECE:
                bound = id
                break
        written_now = {entry.id for entry in held if bound is None or _id(entry) <= bound}
        self._held.drop(lambda entry: entry.id in written_now)
        return b"".join(piece), bound

    def _encoded(self, entries: Iterable[Entry]) -> bytes:
        encoding, prefix = self._connection.encoding, self._hub.epoch.encode() + b"-"
        return b"".join([encoding.event(prefix + entry.id, entry.event) for entry in entries])


def _id(entry: Entry) -> EntryId:
    return EntryId.parse(entry.id)


def _wishes(items: list[_Wish | bytes]) -> Iterator[_Wish]:
    return (each for each in items if isinstance(each, _Wish))
