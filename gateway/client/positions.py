"""Where a reader stands in each of the channels that it follows. No I/O.

Over WebSocket the channels of one connection catch up at their own pace, so an event of one channel
says nothing about another: each channel has a position of its own, and resumes with it.
"""

from collections.abc import Iterable, Mapping

from gateway.channels import EARLIEST, EntryId, Position
from gateway.client.frames import Received, Standing, Subscribed


class Positions:
    """The channels that are followed and the newest position in each. Positions only move forward.

    A channel is at None before anything is known of it (it will start live), at `earliest`, or at
    a position.
    """

    def __init__(
        self, channels: Iterable[str], after: str | Mapping[str, str] | None = None
    ) -> None:
        """Begin after one position for all channels, or after one for each channel named.

        Raises:
            BadRequest: if a position is none.
            ValueError: if there is no channel, or a position is for a channel that is not followed.
        """
        names = list(dict.fromkeys(channels))
        if not names:
            raise ValueError("expected at least one channel to follow")
        starts = after if isinstance(after, Mapping) else dict.fromkeys(names, after)
        if strangers := starts.keys() - names:
            raise ValueError(
                f"a position is given for {sorted(strangers)[0]}, which is not followed"
            )
        self._known = {name: _parse(starts.get(name)) for name in names}
        self._asked = dict(self._known)
        self._subscribed: set[str] = set()

    @property
    def channels(self) -> list[str]:
        """Every channel that is followed, in the order in which they were given."""
        return list(self._known)

    def known(self) -> dict[str, str]:
        """The position of every channel that has one: where to go on later."""
        return {name: str(at) for name, at in self._known.items() if at is not None}

    def each(self) -> dict[str, str | None]:
        """Begin a connection on which every channel resumes with its own position (None: live)."""
        self._asked = dict(self._known)
        self._subscribed.clear()
        return {name: None if at is None else str(at) for name, at in self._known.items()}

    def oldest(self) -> str | None:
        """Begin a connection that has one position: that from which no channel misses anything.

        Raises:
            ValueError: if some channels have a position and others are to start live, which one
                position cannot say.
        """
        known = [at for at in self._known.values() if at is not None]
        if known and len(known) < len(self._known):
            raise ValueError("one position covers all channels here: give one for each, or none")
        oldest = min(known, key=_age, default=None)
        self._asked = dict.fromkeys(self._known, oldest)
        self._subscribed.clear()
        return None if oldest is None else str(oldest)

    def subscribed(self, reply: Subscribed) -> None:
        """Note that a channel is subscribed: its events after the reply's position follow.

        Usually that is the position that was asked for. If it is another one and something is
        lost, the log is not the one that we knew, and our position means nothing in it.
        """
        if reply.channel not in self._known:
            return
        self._subscribed.add(reply.channel)
        position = Position.parse(reply.position)
        if reply.recovered or position == self._asked.get(reply.channel):
            self._advance(reply.channel, position)
        else:
            self._known[reply.channel] = position

    def standing(self, heartbeat: Standing) -> None:
        """Move every subscribed channel to where the gateway says that the connection stands."""
        position = Position.parse(heartbeat.position)
        for channel in self._subscribed:
            self._advance(channel, position)

    def received(self, event: Received) -> bool:
        """Move the event's channel to it. False if it was seen, or its channel is not ours."""
        if event.channel not in self._known:
            return False
        return self._advance(event.channel, Position.parse(event.position))

    def _advance(self, channel: str, position: Position) -> bool:
        known = self._known[channel]
        if (
            isinstance(known, Position)
            and known.epoch == position.epoch
            and position.id <= known.id
        ):
            return False
        self._known[channel] = position
        return True


def _parse(token: str | None) -> Position | str | None:
    return token if token is None or token == EARLIEST else Position.parse(token)


def _age(at: Position | str) -> EntryId:
    return at.id if isinstance(at, Position) else EntryId(0, 0)
