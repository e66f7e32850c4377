"""What the frames of a WebSocket connection mean, whichever way it is served."""

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Protocol

from gateway.errors import BadFrame, CloseCode, GatewayError, TooManySubscriptions
from gateway.firstline import too_often
from gateway.hub.subscription import Connection, Request
from gateway.settings import Of
from gateway.transports import frames
from gateway.transports.door import Door, PaceWish, parse_after, parse_pace

MAX_CHANNELS_IN_URL = 50


class Talker(Connection, Protocol):
    """A connection that can be answered with JSON texts of its own."""

    def wrap(self, payload: bytes) -> bytes:
        """Return the bytes of one text frame, for `write`."""

    def be_quiet(self, seconds: float) -> None:
        """Hear nothing of the peer for so long."""


def receive(door: Door, connection: Talker, payload: bytes) -> asyncio.Task[None] | None:
    """Do what a client's frame asks. Returns the task of a command, which takes its time."""
    identity: int | str | None = None
    try:
        frame = frames.parse(payload)
        identity = frame.id
        if pause := door.too_often(connection.caller):
            connection.be_quiet(pause)
            raise too_often(pause)
        if frame.subscribe is not None:
            guard = door.dispatcher.guard
            if guard.counts_subscriptions or guard.needs_owner(frame.subscribe.channel):
                work = partial(_subscribe_later, door, connection, identity, frame.subscribe)
                return door.spawn_in_turn(connection, work)
            _subscribe(door, connection, identity, frame.subscribe)
        elif frame.unsubscribe is not None:
            if connection in door.turns:  # of a subscription that may be the one to end
                channel = frame.unsubscribe.channel
                work = partial(_unsubscribe_later, door, connection, identity, channel)
                return door.spawn_in_turn(connection, work)
            _unsubscribe(door, connection, identity, frame.unsubscribe.channel)
        elif frame.command is not None:
            return door.spawn(_command(door, connection, identity, frame.command))
    except GatewayError as error:
        _refuse(connection, error.extra.get("id", identity), error)
        if error.extra.get("fatal"):
            connection.goodbye(CloseCode.BAD_FRAME, 0)
    return None


def subscribe_from_url(
    door: Door, connection: Talker, channels: list[str], query: Mapping[str, str]
) -> bool:
    """Subscribe as `?channel=a&channel=b&after=…` asks: all at once, from one position.

    Returns False if that was refused.
    """
    try:
        for name in channels:
            door.dispatcher.guard.check_channel(name, connection.caller)
        pace = parse_pace(query)
        wanted = tuple(dict.fromkeys(channels))
        if len(wanted) > min(MAX_CHANNELS_IN_URL, door.max_subscriptions):
            raise TooManySubscriptions(f"expected at most {MAX_CHANNELS_IN_URL} channels")
        _request(door, connection, None, wanted, query.get("after") or None, pace)
    except GatewayError as error:
        _refuse(connection, None, error)
        return False
    return True


def _subscribe(
    door: Door, connection: Talker, identity: int | str | None, wish: frames.Subscribe
) -> None:
    channel = door.dispatcher.guard.check_channel(wish.channel, connection.caller)
    if door.hub.is_subscribed(connection, channel):
        raise BadFrame(f"this connection is subscribed to {channel!r} already")
    if len(connection.audiences) >= door.max_subscriptions:
        raise TooManySubscriptions(
            f"expected at most {door.max_subscriptions} subscriptions of one connection"
        )
    pace = PaceWish(wish.max_rate, wish.conflate)
    _request(door, connection, identity, (channel,), wish.after, pace)


async def _subscribe_later(
    door: Door, connection: Talker, identity: int | str | None, wish: frames.Subscribe
) -> None:
    """Subscribe as soon as it is known whether the peer may, and may once more."""
    guard = door.dispatcher.guard
    holding = door.holdings.get(connection)
    try:
        await guard.check_owner([wish.channel], connection.caller)
        await guard.charge(Of.SUBSCRIPTIONS, connection.caller)
        if holding is not None:
            await holding.subscribe()
        try:
            _subscribe(door, connection, identity, wish)
        except GatewayError:
            if holding is not None:
                holding.unsubscribe()
            raise
    except GatewayError as error:
        _refuse(connection, identity, error)


async def _unsubscribe_later(
    door: Door, connection: Talker, identity: int | str | None, channel: str
) -> None:
    try:
        _unsubscribe(door, connection, identity, channel)
    except GatewayError as error:
        _refuse(connection, identity, error)


def _request(
    door: Door,
    connection: Talker,
    identity: int | str | None,
    channels: tuple[str, ...],
    after: str | None,
    pace: PaceWish,
) -> None:
    paces = door.paces(channels, pace)
    request = Request(
        channels,
        parse_after(after),
        acknowledge=lambda standings: b"".join(
            [connection.wrap(answer) for answer in frames.subscribed(identity, standings, paces)]
        ),
        refuse=lambda error: _refuse(connection, identity, error),
        paces=paces,
    )
    door.hub.subscribe(connection, request)


def _unsubscribe(door: Door, connection: Talker, identity: int | str | None, channel: str) -> None:
    if not door.hub.unsubscribe(connection, channel):
        raise BadFrame(f"this connection is not subscribed to {channel[:80]!r}")
    door.hub.answer(connection, connection.wrap(frames.unsubscribed(identity, channel)))


async def _command(
    door: Door, connection: Talker, identity: int | str | None, command: frames.SendCommand
) -> None:
    try:
        accepted = await door.dispatcher.send(
            command.path,
            bytes(command.data),
            connection.caller,
            idempotency_key=command.idempotency_key,
        )
    except GatewayError as error:
        _refuse(connection, identity, error)
    else:
        connection.write(connection.wrap(frames.accepted(identity, accepted.status.id)))


def _refuse(connection: Talker, identity: object, error: GatewayError) -> None:
    known = identity if isinstance(identity, int | str) else None
    connection.write(connection.wrap(frames.refused(known, error)))
