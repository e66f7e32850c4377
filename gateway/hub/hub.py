"""The hub: who on this process is subscribed to what.

Apart from a resumption's reads nothing here awaits: between a check and the change that depends on
it no other code runs, so there is no race between subscribing and publishing.
"""

import asyncio
import logging
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import chain

from gateway.broker.eventlog import Entry
from gateway.channels import EntryId, Position
from gateway.errors import CloseCode
from gateway.hub.audience import Audience, Batch, Held
from gateway.hub.expiry import Expiry
from gateway.hub.history import History
from gateway.hub.outbox import Outbox
from gateway.hub.resumption import Resumption
from gateway.hub.subscription import AT_ONCE, Connection, Holding, Pace, Request, Standing
from gateway.principals import UNKNOWN

logger = logging.getLogger(__name__)

SLOTS = 25
"""Parts into which the connections are divided, so that their heartbeats do not come at once."""


class Hub:
    """Connections, their subscriptions, and the position up to which everything was dispatched."""

    def __init__(self, history: History, *, write_buffer: int) -> None:
        self._history = history
        self._write_buffer = write_buffer
        self._audiences: dict[bytes, Audience] = {}
        self._slots: list[set[Connection]] = [set() for _ in range(SLOTS)]
        self._opened = 0
        self.expiry = Expiry()
        """Until when connections may stay."""
        self._resumptions: dict[Connection, Resumption] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._awaited: list[tuple[EntryId, asyncio.Future[None]]] = []
        self.slow: set[Connection] = set()
        """Connections whose peer lags: looked at after each batch."""
        self._holdings: dict[Connection, Holding] = {}
        """Of the connections for which quotas are counted."""
        self._outboxes: dict[Connection, Outbox] = {}
        """Of the connections that do not hear everything at once."""
        self._pending: set[Connection] = set()
        """Those in whose outbox something waits."""
        self._timer: asyncio.TimerHandle | None = None
        """For the first delivery that is not due yet."""
        self._window_ms: int | None = None
        """Within which those return who come although nobody is served any more."""
        self.epoch = ""
        self.position = EntryId(0, 0)

    def __len__(self) -> int:
        return sum(map(len, self._slots))

    @property
    def token(self) -> str:
        """The position at which every live subscription stands."""
        return f"{self.epoch}-{self.position}"

    # Connections

    def open(self, connection: Connection) -> None:
        """Take a connection in: from now on it gets heartbeats and a goodbye.

        It stays no longer than its caller's credentials hold.
        """
        self._opened += 1
        connection.number, connection.since = self._opened, time.time()
        self._slots[connection.number % SLOTS].add(connection)
        expires = connection.caller.principal.expires
        if expires is not None:
            self.expiry.set(connection, expires, CloseCode.TOKEN_EXPIRED)
        if self._window_ms is not None:  # once it was told what it is told at its opening
            loop = asyncio.get_running_loop()
            loop.call_soon(self._dismiss, connection, CloseCode.SHUTDOWN, self._window_ms, {})

    def count(self, connection: Connection, holding: Holding) -> None:
        """Have a holding hear of what a connection gives back, up to its end."""
        if connection.closed:
            holding.close()
        else:
            self._holdings[connection] = holding

    def close(self, connection: Connection) -> None:
        """Forget a connection that ended. Harmless when done twice."""
        holding = self._holdings.pop(connection, None)
        if holding is not None:
            holding.close()
        self._slots[connection.number % SLOTS].discard(connection)
        self.expiry.forget(connection)
        self.slow.discard(connection)
        self._outboxes.pop(connection, None)
        self._pending.discard(connection)
        resumption = self._resumptions.pop(connection, None)
        if resumption is not None:
            resumption.cancel()
        for audience in connection.audiences:
            self._leave(connection, audience)
        connection.audiences = ()

    def connections(self) -> Iterator[Connection]:
        """Give all connections, also those that the process has with itself, oldest first."""
        yield from sorted(chain.from_iterable(self._slots), key=lambda each: each.number)

    def connection(self, number: int) -> Connection | None:
        """Return the connection of this number, if it is still there."""
        slot = self._slots[number % SLOTS]
        return next((each for each in slot if each.number == number), None)

    def redirect(self, connection: Connection) -> None:
        """The connection's descriptor has changed."""
        for audience in connection.audiences:
            audience.redirect(connection)

    def beat(self, slot: int) -> None:
        """Send a sign of life to one part of the connections."""
        signs: dict[tuple[object, bool], bytes] = {}
        for connection in tuple(self._slots[slot % SLOTS]):
            connection.beat(self._sign(connection, signs))

    def _sign(self, connection: Connection, signs: dict[tuple[object, bool], bytes]) -> bytes:
        """Return a sign of life that tells a connection where it stands, if that is here."""
        behind = connection in self._resumptions or connection in self._pending
        nowhere = behind or connection.caller.principal is UNKNOWN  # who is told nothing yet
        key = (connection.encoding, nowhere)
        if key not in signs:
            position = None if nowhere else self.token.encode()
            signs[key] = connection.encoding.heartbeat(position)
        return signs[key]

    def dismiss(self, code: CloseCode, *, window_ms: int) -> None:
        """Say goodbye to everybody; their returns are spread over a window of milliseconds.

        At a shutdown each is told before where it stands: a quiet channel's subscriber comes back
        from here, and not from its last event.
        """
        signs: dict[tuple[object, bool], bytes] = {}
        for slot in self._slots:
            for connection in tuple(slot):
                self._dismiss(connection, code, window_ms, signs)

    def shut(self, *, window_ms: int) -> None:
        """Dismiss everybody, and whoever comes from now on."""
        self._window_ms = window_ms
        self.dismiss(CloseCode.SHUTDOWN, window_ms=window_ms)

    def _dismiss(
        self,
        connection: Connection,
        code: CloseCode,
        window_ms: int,
        signs: dict[tuple[object, bool], bytes],
    ) -> None:
        if connection.closed:
            return
        if code is CloseCode.SHUTDOWN:
            connection.write(self._sign(connection, signs))
        connection.goodbye(code, random.randint(0, window_ms))

    # Subscriptions

    def subscribe(self, connection: Connection, request: Request) -> None:
        """Subscribe a connection; from a position, as soon as the history was read.

        The answer is written before the first event; between the position asked for and the
        present nothing is left out, nothing comes twice, and all comes in the order of the log.
        """
        resumption = self._resumptions.get(connection)
        if connection.closed:
            return
        if request.paces:
            self._set_paces(connection, request.paces)
        if resumption is not None:
            resumption.add(request)
        elif request.after is None:
            self.go_live(connection, request.channels)
            standing = Standing(self.token, recovered=True)
            connection.write(request.acknowledge(dict.fromkeys(request.channels, standing)))
        else:
            self._resume(connection, request)

    def unsubscribe(self, connection: Connection, channel: str) -> bool:
        """End a subscription. Returns False if there was none."""
        audience = self._audiences.get(channel.encode())
        if audience is None or audience not in connection.audiences:
            return False
        connection.audiences = tuple(each for each in connection.audiences if each is not audience)
        self._leave(connection, audience)
        resumption = self._resumptions.get(connection)
        if resumption is not None:
            resumption.drop(channel)
        if connection in self._outboxes:
            self._drop_pace(connection, audience.channel)
        if connection in self._holdings:
            self._holdings[connection].unsubscribe()
        return True

    def answer(self, connection: Connection, data: bytes) -> None:
        """Write an answer that must not overtake those to earlier requests to subscribe."""
        resumption = self._resumptions.get(connection)
        if resumption is not None:
            resumption.answer(data)
        else:
            connection.write(data)

    def is_subscribed(self, connection: Connection, channel: str) -> bool:
        return self._audiences.get(channel.encode()) in connection.audiences

    def go_live(self, connection: Connection, channels: Sequence[str]) -> None:
        """Write the channels' events to the connection as they come."""
        for audience in self._join(connection, channels):
            self._listen(connection, audience)

    def hold(self, connection: Connection, channels: Sequence[str], held: Held) -> None:
        """Keep the events of these channels, and of those it hears already, for the connection."""
        self._deliver(connection)
        self._join(connection, channels)
        for audience in connection.audiences:
            audience.hold(connection, held)

    def release(self, connection: Connection) -> None:
        """The connection has caught up: everything it is subscribed to goes live."""
        self._resumptions.pop(connection, None)
        for audience in connection.audiences:
            self._listen(connection, audience)

    def _listen(self, connection: Connection, audience: Audience) -> None:
        outbox = self._outboxes.get(connection)
        if outbox is None:
            audience.go_live(connection)
        else:
            audience.hold(connection, outbox)

    def _join(self, connection: Connection, channels: Sequence[str]) -> list[Audience]:
        joined = []
        for channel in channels:
            name = channel.encode()
            audience = self._audiences.get(name)
            if audience is None:
                audience = self._audiences[name] = Audience(name)
            if audience not in connection.audiences:
                connection.audiences = (*connection.audiences, audience)
            joined.append(audience)
        return joined

    def _leave(self, connection: Connection, audience: Audience) -> None:
        audience.leave(connection)
        if not len(audience):
            self._audiences.pop(audience.channel, None)

    def _resume(self, connection: Connection, request: Request) -> None:
        resumption = Resumption(self, self._history, connection, limit=self._write_buffer)
        self._resumptions[connection] = resumption
        resumption.add(request)
        task = asyncio.create_task(resumption.run())
        self._tasks.add(task)
        task.add_done_callback(partial(self._finished, connection))

    def _finished(self, connection: Connection, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            logger.error("a resumption failed", exc_info=error)
            connection.goodbye(CloseCode.POSITION_LOST, random.randint(100, 1000))

    # Subscriptions that are not heard at once

    def _set_paces(self, connection: Connection, paces: Mapping[str, Pace]) -> None:
        outbox = self._outboxes.get(connection)
        if outbox is None:
            outbox = Outbox(connection, self._pending, limit=self._write_buffer)
            self._outboxes[connection] = outbox
            if connection not in self._resumptions:
                for audience in connection.audiences:
                    audience.hold(connection, outbox)
        for channel, pace in paces.items():
            outbox.set_pace(channel.encode(), pace)

    def _drop_pace(self, connection: Connection, channel: bytes) -> None:
        outbox = self._outboxes[connection]
        outbox.set_pace(channel, AT_ONCE)
        outbox.drop(channel)
        if not outbox.needed:
            self._deliver(connection)
            del self._outboxes[connection]
            if connection not in self._resumptions:
                for audience in connection.audiences:
                    audience.go_live(connection)

    def eased(self, connection: Connection) -> None:
        """The peer of a connection has taken most of what was written."""
        self.slow.discard(connection)
        if connection in self._pending:
            self._deliver_due()

    def _deliver(self, connection: Connection) -> None:
        """Write what waits for a connection, if anything does."""
        if connection in self._pending:
            entries = self._outboxes[connection].take(asyncio.get_running_loop().time())
            batch = Batch(self.epoch.encode())
            connection.write(batch.encode(connection.encoding, entries))

    def _deliver_due(self) -> None:
        """Write what waits for those whose time has come; see that the others get their turn."""
        now = asyncio.get_running_loop().time()
        for connection in self._pending - self.slow:
            if self._outboxes[connection].due <= now:
                self._deliver(connection)
        waiting = self._pending - self.slow
        if waiting and self._timer is None:
            due = min(self._outboxes[connection].due for connection in waiting)
            self._timer = asyncio.get_running_loop().call_at(due, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._deliver_due()

    # Events

    def dispatch(self, entries: Sequence[Entry]) -> None:
        """Write entries, which follow the hub's position without a gap, to all who hear them."""
        heard: dict[Audience, list[Entry]] = {}
        for entry in entries:
            audience = self._audiences.get(entry.channel)
            if audience is not None:
                heard.setdefault(audience, []).append(entry)
        self.position = EntryId.parse(entries[-1].id)
        if heard:
            batch = Batch(self.epoch.encode())
            batch.publish(heard)
            if self._pending:
                self._deliver_due()
            if batch.overflowed or self.slow:
                self._close_slow(batch.overflowed)
        if self._awaited:
            self._wake()

    async def reached(self, id: EntryId) -> None:
        """Wait until everything up to this entry was dispatched."""
        if self.position < id:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._awaited.append((id, future))
            await future

    def _wake(self) -> None:
        for id, future in self._awaited:
            if id <= self.position and not future.done():
                future.set_result(None)
        self._awaited = [each for each in self._awaited if not each[1].done()]

    def _close_slow(self, overflowed: list[Connection]) -> None:
        lagging = [
            each
            for each in self.slow
            if each.unsent() > self._write_buffer and each not in self._resumptions
        ]  # who catches up is slow when more is held for it than it may have
        for connection in (*overflowed, *lagging):
            connection.goodbye(CloseCode.SLOW_CONSUMER, random.randint(100, 1000))

    # The log

    def begin(self, epoch: str, position: EntryId) -> None:
        """Stand at this position of the log: everything after it will be dispatched."""
        self.epoch, self.position = epoch, position
        awaited, self._awaited = self._awaited, []
        for _, future in awaited:  # who waits for what another log held finds it replaced
            if not future.done():
                future.set_result(None)

    def interrupt(self, *, window_ms: int) -> None:
        """What the subscribers have and what comes next do not join up: let them all resume."""
        self.dismiss(CloseCode.POSITION_LOST, window_ms=window_ms)

    def here(self) -> Position:
        return Position(self.epoch, self.position)
