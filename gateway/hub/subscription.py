"""What the hub asks of a connection, and what a connection asks of the hub."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from gateway.channels import Position
from gateway.errors import CloseCode, GatewayError
from gateway.principals import Caller

if TYPE_CHECKING:
    from gateway.hub.audience import Audience


class Encoding(Protocol):
    """How events look on one kind of wire. Encoded events can be joined and written at once."""

    def event(self, position: bytes, event: bytes) -> bytes:
        """Return the bytes for one event."""

    def heartbeat(self, position: bytes | None) -> bytes:
        """Return a sign of life that, given a position, moves the subscriber there."""


class Holding(Protocol):
    """What a connection holds of somebody's quota."""

    def unsubscribe(self, count: int = 1) -> None:
        """Give subscriptions back."""

    def close(self) -> None:
        """Give everything back."""


class Connection(Protocol):
    """One browser over one transport, as the hub sees it. None of this awaits but `drained`."""

    audiences: tuple["Audience", ...]
    """Where it is subscribed. The hub's own; a connection begins with none."""
    number: int
    """What tells it from the others of this process. The hub's own."""
    since: float
    """When it was opened, in seconds since 1970. The hub's own."""
    caller: Caller
    """Who is at the other end."""
    closed: bool
    """It has ended, or is about to: nothing more is written to it."""
    descriptor: int
    """Its socket, to be written to directly; -1 where, or while, only `write` may be used."""

    @property
    def encoding(self) -> Encoding:
        """How events look on its wire."""

    def write(self, data: bytes) -> None:
        """Send encoded events. After the end of the connection it does nothing."""

    def unsent(self) -> int:
        """Return how many bytes wait for a slow peer."""

    async def drained(self) -> None:
        """Wait until the peer has taken most of what was written, or is gone."""

    def beat(self, sign: bytes) -> None:
        """Send a sign of life, or give up a peer that gave none of its own."""

    def goodbye(self, code: CloseCode, retry_ms: int) -> None:
        """Tell the peer why and when to come back, and close."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a subscription begins: the answer to a request."""

    position: str
    recovered: bool
    """Nothing between the position that was asked for and this one is missing."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How one subscription hears its channel."""

    interval: float = 0.0
    """Seconds between deliveries, at least; 0: as events come."""
    conflate: bool = False
    """Of the events that wait, only the latest of each conflation key is kept."""


AT_ONCE = Pace()
"""Every event, as it comes."""


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """One wish to subscribe to channels, all from one position."""

    channels: tuple[str, ...]
    after: Position | str | None
    """A position, `EARLIEST`, or None for what comes from now on."""
    acknowledge: Callable[[Mapping[str, Standing]], bytes]
    """Encodes the answer. It is written before the first event."""
    refuse: Callable[[GatewayError], None]
    """Called if the log cannot be read; the subscriptions are gone then."""
    paces: Mapping[str, Pace] = field(default_factory=dict)
    """Of the channels that are not heard at once."""
    reserved: frozenset[str] = frozenset()
    """The channels whose history the subscriber may not read: it can resume from a moment ago."""
