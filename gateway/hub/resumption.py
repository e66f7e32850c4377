"""From a position to the present, without a gap: replaying → live.

The connection's subscriptions are registered first and their events held. Then the history after
the position is read in portions and written, merged with what is held, in the order of the log and
each event once; when the last portion is out the connection goes live. A position is only ever
written when everything before it, on all channels of the connection, was written too.
"""

import asyncio
from typing import TYPE_CHECKING

from gateway.broker.eventlog import Entry
from gateway.channels import EntryId, Position
from gateway.errors import BrokerUnavailable, CloseCode
from gateway.hub.audience import Held
from gateway.hub.history import History, Portion
from gateway.hub.subscription import Connection, Request, Standing

if TYPE_CHECKING:
    from gateway.hub.hub import Hub


class Resumption:
    """Brings new subscriptions of one connection to the present, in the order of the requests."""

    def __init__(self, hub: "Hub", history: History, connection: Connection, *, limit: int) -> None:
        """`limit`: bytes of events to hold before the connection counts as too slow."""
        self._hub = hub
        self._history = history
        self._connection = connection
        self._requests: list[tuple[Request, Position]] = []
        self._held = Held(limit)
        self._cancelled = False

    def add(self, request: Request) -> None:
        """Hold the events of the request's channels from now on; replay them when it is time."""
        self._requests.append((request, self._hub.here()))
        self._hub.hold(self._connection, request.channels, self._held)

    def cancel(self) -> None:
        """The connection is gone: write nothing any more."""
        self._cancelled = True

    async def run(self) -> None:
        """Replay until no request is left, then let the connection go live."""
        while self._requests and not self._cancelled:
            requests, self._requests = self._requests, []
            try:
                await self._replay(requests)
            except BrokerUnavailable as error:
                self._refuse(requests, error)
        if not self._cancelled:
            self._write({}, None)
            self._hub.release(self._connection)

    def _refuse(self, requests: list[tuple[Request, Position]], error: BrokerUnavailable) -> None:
        if self._cancelled:
            return
        for request, _ in requests:
            for channel in request.channels:
                self._hub.unsubscribe(self._connection, channel)
            request.refuse(error)

    async def _replay(self, requests: list[tuple[Request, Position]]) -> None:
        since = self._hub.here()
        places = {
            channel: request.after
            for request, _ in requests
            if request.after is not None
            for channel in request.channels
        }
        portions = await self._read(places, since)
        self._acknowledge(requests, portions)
        while portions and not self._cancelled:
            bound = min((p.ids[-1] for p in portions.values() if not p.complete), default=None)
            await self._hub.reached(bound or max(p.page.last for p in portions.values()))
            if self._cancelled or self._interrupted(portions):
                return
            self._write(portions, bound)
            if bound is None:
                return
            await self._connection.drained()
            here = Position(self._hub.epoch, bound)
            portions = await self._read(dict.fromkeys(places, here), since)
            if not all(portion.page.recovered for portion in portions.values()):
                self._give_up()  # trimmed while it was being read

    async def _read(self, places: dict[str, Position | str], since: Position) -> dict[str, Portion]:
        portions = await asyncio.gather(
            *(self._history.read(channel, at, since=since) for channel, at in places.items())
        )
        return dict(zip(places, portions, strict=True))

    def _interrupted(self, portions: dict[str, Portion]) -> bool:
        """Tell whether the log was replaced while it was being read; then the peer begins anew."""
        if all(portion.page.epoch == self._hub.epoch for portion in portions.values()):
            return False
        self._give_up()
        return True

    def _give_up(self) -> None:
        """Let the peer come back with its position and be told what became of it."""
        if not self._cancelled:
            self._connection.goodbye(CloseCode.POSITION_LOST, 0)

    def _acknowledge(
        self, requests: list[tuple[Request, Position]], portions: dict[str, Portion]
    ) -> None:
        if self._cancelled:
            return
        for request, here in requests:
            fresh = Standing(str(here), recovered=True)
            standings = {
                channel: portions[channel].standing() if channel in portions else fresh
                for channel in request.channels
            }
            self._connection.write(request.acknowledge(standings))

    def _write(self, portions: dict[str, Portion], bound: EntryId | None) -> None:
        """Write what is due up to `bound` (None: all) of the portions and of what is held."""
        encoding = self._connection.encoding
        if len(portions) == 1 and bound is None and not self._held.entries:
            (portion,) = portions.values()
            self._connection.write(portion.joined(encoding))
            return
        due = {
            id: data
            for portion in portions.values()
            for id, data in zip(portion.ids, portion.encoded(encoding), strict=True)
            if bound is None or id <= bound
        }
        prefix = self._hub.epoch.encode() + b"-"
        for id, entry in self._take_held(bound):
            if id not in due:
                due[id] = encoding.event(prefix + entry.id, entry.event)
        self._connection.write(b"".join([due[id] for id in sorted(due)]))

    def _take_held(self, bound: EntryId | None) -> list[tuple[EntryId, Entry]]:
        """Return what is held up to `bound`, and keep the rest."""
        held = [(EntryId.parse(entry.id), entry) for entry in self._held.take()]
        if bound is None:
            return held
        self._held.add([entry for id, entry in held if id > bound])
        return [each for each in held if each[0] <= bound]
