"""Follow channels for as long as it takes: connect, and when it breaks, come back."""

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass

from gateway.client import connections
from gateway.client.frames import Interrupted, NotKnown, Received, Standing, Subscribed
from gateway.client.positions import Positions


class Backoff:
    """How long to wait before coming back: exponential, with full jitter.

    The whole delay is random, so that a thousand readers that were cut off together do not come
    back together (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
    """

    def __init__(self, *, first: float = 0.5, longest: float = 20.0) -> None:
        """Wait up to `first` seconds, then up to twice that, and never more than `longest`."""
        self._first = first
        self._longest = longest
        self._ceiling = first

    def next(self) -> float:
        """Seconds to wait now. The next wait may be twice as long."""
        delay = random.uniform(0, self._ceiling)
        self._ceiling = min(self._longest, self._ceiling * 2)
        return delay

    def reset(self) -> None:
        """All is well: the next wait is a short one again."""
        self._ceiling = min(self._first, self._longest)


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The connection is over; the next attempt follows by itself after `retry_in` seconds."""

    reason: str
    retry_in: float


Notice = Subscribed | Disconnected


def _ignore(_: Notice) -> None:
    pass


async def subscribe(
    url: str,
    channels: Iterable[str] | Positions,
    *,
    after: str | Mapping[str, str] | None = None,
    sse: bool = False,
    token: connections.TokenSource = None,
    max_rate: float | None = None,
    conflate: bool | None = None,
    notice: Callable[[Notice], None] = _ignore,
    backoff: Backoff | None = None,
) -> AsyncGenerator[Received]:
    """Yield each event of the channels, once and in order, through all reconnections.

    Starts live, or `after` a position (one for all channels, or one for each), or after `earliest`.
    `token` is a bearer token, or a function that gives a fresh one (it may be async): it is called
    for each connection, and before and after a token has expired. `max_rate` is how many deliveries
    a second to have at most, `conflate` whether only the latest of what waits is wanted, where a
    channel allows that.

    `notice` is told of every subscription, and with it whether events were lost for good
    (`Subscribed.recovered`), and of every interruption. Whoever passes `Positions` can read from
    them at any time where to go on later. Close the generator (or cancel its reader) to stop.

    Raises:
        Refused: if the gateway says no for good.
        BadRequest: if `after` is no position.
        ValueError: if the URL or the channels make no sense.
    """
    positions = channels if isinstance(channels, Positions) else Positions(channels, after)
    backoff = backoff or Backoff()
    connection = connections.event_stream if sse else connections.websocket
    pace = connections.Pace(max_rate=max_rate, conflate=conflate)
    refused = False
    while True:
        try:
            async with aclosing(connection(url, positions, token, pace)) as sayings:
                async for said in sayings:
                    if isinstance(said, Received):
                        if positions.received(said):
                            yield said
                    elif isinstance(said, Standing):
                        positions.standing(said)
                    elif isinstance(said, Subscribed):
                        backoff.reset()
                        refused = False
                        positions.subscribed(said)
                        notice(said)
        except Interrupted as interrupted:
            delay = backoff.next() if interrupted.retry_after is None else interrupted.retry_after
            notice(Disconnected(str(interrupted), delay))
        except NotKnown as error:  # worth another attempt with another token, once
            if refused or not callable(token):
                raise
            refused, delay = True, backoff.next()
            notice(Disconnected(str(error), delay))
        await asyncio.sleep(delay)
