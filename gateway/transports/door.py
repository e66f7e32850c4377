"""What every connection shares: the way to the hub, to the dispatcher, and the limits."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple
from weakref import WeakKeyDictionary

from starlette.requests import HTTPConnection

from gateway.auth.doorkeeper import Doorkeeper
from gateway.channels import EARLIEST, Position
from gateway.config import ChannelConfig
from gateway.dispatch import Dispatcher
from gateway.errors import BadRequest
from gateway.hub.hub import Hub
from gateway.hub.subscription import AT_ONCE, Connection, Pace
from gateway.limits.firstline import FirstLine
from gateway.limits.quotas import Holding
from gateway.policy.routes import Channels
from gateway.principals import Caller, Transport

logger = logging.getLogger(__name__)


MAX_RATE = 1000
"""Times a second."""
MAX_EARLY = 64 << 10
"""Bytes of frames that may wait until it is known who sends them."""
EARLY_OVERHEAD = 256
"""Bytes that each of them counts beside its own: all are worked on in one go then, and those that
are empty would have no bound."""


@dataclass(slots=True, eq=False)
class Introduction:
    """What waits until a connection has said who it is."""

    channels: tuple[str, ...] = ()
    """Those of its URL."""
    query: Mapping[str, str] = field(default_factory=dict)
    begun: bool = False
    """It has said so, and that is being looked at."""
    frames: list[bytes] = field(default_factory=list)
    """What it said since."""
    size: int = 0
    """What those frames take, in bytes."""

    def keep(self, frame: bytes) -> bool:
        """Keep a frame until it is known who sent it. Returns False if more waits than may."""
        self.frames.append(frame)
        self.size += EARLY_OVERHEAD + len(frame)
        return self.size <= MAX_EARLY


Introductions = WeakKeyDictionary[Connection, Introduction]


class PaceWish(NamedTuple):
    """How a subscriber would like to hear a channel."""

    max_rate: float | None = None
    """Deliveries a second, at most."""
    conflate: bool | None = None
    """Only the latest of what waits; None: as the channel is configured."""


NO_WISH = PaceWish()


@dataclass(frozen=True, kw_only=True)
class Door:
    """The inside of the gateway, as the transports see it."""

    hub: Hub
    channels: Channels
    dispatcher: Dispatcher
    max_subscriptions: int
    max_frame: int
    heartbeat: float
    """Seconds."""
    doorkeeper: Doorkeeper
    first_frame: float
    """Seconds for who shows nothing to say who it is."""
    introductions: Introductions = field(default_factory=WeakKeyDictionary)
    """Of the connections that have yet to say who they are."""
    first_line: FirstLine | None = None
    """Counts what each address asks; None: nobody does."""
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    """Requests of connections that are being worked on."""
    holdings: WeakKeyDictionary[Connection, Holding] = field(default_factory=WeakKeyDictionary)
    """What connections hold of quotas."""
    turns: dict[Connection, asyncio.Task[None]] = field(default_factory=dict)
    """The last of the requests to subscribe that a connection has under way."""

    async def identify(self, connection: HTTPConnection, transport: Transport) -> Caller:
        """Return who wants to connect. Raises as `Guard.identify` does."""
        return await self.dispatcher.guard.identify(
            connection.headers,
            connection.query_params,
            peer=connection.client,
            transport=transport,
        )

    def admit(self, connection: Connection) -> bool:
        """Look again at a connection that is open now: its caller may have been blocked meanwhile.

        Returns False if it is closed.
        """
        block = self.doorkeeper.blocked(connection.caller.principal)
        if block is not None:
            connection.goodbye(block.close_code, 0)
        return not connection.closed

    def too_often(self, caller: Caller) -> float:
        """Count a frame. Returns 0, or for how many seconds its sender is not to be listened to."""
        return self.first_line.count(caller.address) if self.first_line else 0.0

    def pace(self, name: str, wish: PaceWish) -> Pace:
        """Return how a subscription will hear a channel: the slower of what both sides want.

        Raises:
            BadRequest: the wish makes no sense, or the channel cannot be conflated.
        """
        match = self.channels.match(name)
        config = match.config if match else ChannelConfig(pattern=name)
        if wish.max_rate is not None and not 0 < wish.max_rate <= MAX_RATE:
            raise BadRequest(f"expected a max_rate above 0 and up to {MAX_RATE} times a second")
        if wish.conflate and config.conflate is None:
            raise BadRequest(f"the channel {name!r} has no conflation key")
        rates = [rate for rate in (config.max_rate, wish.max_rate) if rate is not None]
        conflate = config.conflate is not None if wish.conflate is None else wish.conflate
        return Pace(1 / min(rates) if rates else 0.0, conflate)

    def paces(self, names: Iterable[str], wish: PaceWish) -> dict[str, Pace]:
        """Return the paces of the channels that are not heard at once. Raises `BadRequest`."""
        paces = {name: self.pace(name, wish) for name in names}
        return {name: pace for name, pace in paces.items() if pace != AT_ONCE}

    def spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Run a request of a connection beside it. It must deal with its own errors."""
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def spawn_in_turn(
        self, connection: Connection, work: Callable[[], Awaitable[None]]
    ) -> asyncio.Task[None]:
        """Run a request when those that the connection made before in this way are done."""
        earlier = self.turns.get(connection)

        async def in_turn() -> None:
            if earlier is not None:
                await asyncio.wait([earlier])
            await work()

        def done(task: asyncio.Task[None]) -> None:
            if self.turns.get(connection) is task:
                del self.turns[connection]

        task = self.turns[connection] = self.spawn(in_turn())
        task.add_done_callback(done)
        return task

    def hold(self, connection: Connection, holding: Holding) -> None:
        """Remember what a connection holds, until it ends."""
        self.holdings[connection] = holding
        self.hub.count(connection, holding)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            logger.error("a request of a connection failed", exc_info=error)


def parse_pace(query: Mapping[str, str]) -> PaceWish:
    """Read `?max_rate=5&conflate=true`. Raises `BadRequest`."""
    rate, conflate = query.get("max_rate", ""), query.get("conflate", "")
    try:
        wanted = float(rate) if rate else None
    except ValueError:
        raise BadRequest(f"expected a number as max_rate but got {rate[:20]!r}") from None
    if conflate not in ("", "true", "false"):
        raise BadRequest(f"expected true or false as conflate but got {conflate[:20]!r}")
    return PaceWish(wanted, conflate == "true" if conflate else None)


def parse_after(token: str | None) -> Position | str | None:
    """Read where a subscription shall begin. Raises `BadRequest`."""
    if token is None or token == EARLIEST:
        return token
    return Position.parse(token)
