"""What the frames of a WebSocket connection mean, whichever way it is served."""

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol

from gateway.auth.credentials import Credential, framed
from gateway.errors import (
    BadFrame,
    CloseCode,
    GatewayError,
    TooManySubscriptions,
    Unauthorized,
)
from gateway.hub.subscription import Connection, Request
from gateway.limits.firstline import too_often
from gateway.limits.quotas import Holding
from gateway.principals import UNKNOWN, Caller
from gateway.settings import Of
from gateway.transports import frames
from gateway.transports.door import Door, Introduction, PaceWish, parse_after, parse_pace

CLOSE_CODES = {
    400: CloseCode.BAD_FRAME,
    401: CloseCode.UNAUTHORIZED,
    403: CloseCode.FORBIDDEN,
    429: CloseCode.TOO_MANY,
}
"""By the status of the same refusal over HTTP. Others are not for ever: come back."""
MAX_CHANNELS_IN_URL = 50
RETRY_MS = 1000
LONGEST_LOOK = 90.0
"""Seconds to find out who somebody is: a provider may be slow, and a limit may have a queue."""


def ending(error: GatewayError) -> tuple[CloseCode, int]:
    """Return how a refused connection is closed, and after how many milliseconds to come back."""
    if error.retry_after_s is not None:  # it passes by itself: come back, but not all at once
        retry_ms = random.randint(error.retry_after_s * 1000, error.retry_after_s * 2000)
        return CloseCode.SHUTDOWN, retry_ms
    return CLOSE_CODES.get(error.status, CloseCode.SHUTDOWN), RETRY_MS


class Talker(Connection, Protocol):
    """A connection that can be answered with JSON texts of its own."""

    def wrap(self, payload: bytes) -> bytes:
        """Return the bytes of one text frame, for `write`."""

    def be_quiet(self, seconds: float) -> None:
        """Hear nothing of the peer for so long."""


def receive(door: Door, connection: Talker, payload: bytes) -> asyncio.Task[None] | None:
    """Do what a client's frame asks. Returns the task of a command, which takes its time."""
    if connection.caller.principal is UNKNOWN:
        return _introduce(door, connection, payload)
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
        elif frame.refresh is not None:
            shown = framed(frame.refresh.token, frame.refresh.ticket)
            return door.spawn(_refresh(door, connection, identity, shown))
        elif frame.authenticate is not None:
            return _begin(door, connection, Introduction(), identity, frame.authenticate)
    except GatewayError as error:
        _refuse(connection, error.extra.get("id", identity), error)
        if error.extra.get("fatal"):
            connection.goodbye(CloseCode.BAD_FRAME, 0)
    return None


def channels_of_url(door: Door, names: Sequence[str]) -> tuple[str, ...]:
    """Return the channels of `?channel=a&channel=b`, each once. Raises `TooManySubscriptions`."""
    channels = tuple(dict.fromkeys(names))
    most = min(MAX_CHANNELS_IN_URL, door.max_subscriptions)
    if len(channels) > most:
        raise TooManySubscriptions(f"expected at most {most} channels but got {len(channels)}")
    return channels


def subscribe_from_url(
    door: Door, connection: Talker, channels: tuple[str, ...], query: Mapping[str, str]
) -> bool:
    """Subscribe as `?channel=a&channel=b&after=…` asks: all at once, from one position.

    Returns False if that was refused.
    """
    try:
        for name in channels:
            door.dispatcher.guard.check_channel(name, connection.caller)
        pace = parse_pace(query)
        _request(door, connection, None, channels, query.get("after") or None, pace)
    except GatewayError as error:
        _refuse(connection, None, error)
        return False
    return True


def await_introduction(
    door: Door, connection: Talker, channels: tuple[str, ...], query: Mapping[str, str]
) -> None:
    """Have a connection say who it is. Until then nothing is done for it."""
    introduction = door.introductions.setdefault(connection, Introduction())
    introduction.channels, introduction.query = channels, query
    end = time.time() + door.first_frame
    door.hub.expiry.set(connection, end, CloseCode.UNAUTHORIZED)


def tell_end(connection: Talker) -> None:
    """Tell a connection that showed who it is until when that holds, if it does not for ever."""
    principal = connection.caller.principal
    if principal.expires is not None:
        said = frames.authenticated(None, "authenticated", principal)
        connection.write(connection.wrap(said))


def _introduce(door: Door, connection: Talker, payload: bytes) -> asyncio.Task[None] | None:
    """Take a frame of a connection that has not said yet who it is, or of which that is unknown."""
    introduction = door.introductions.setdefault(connection, Introduction())
    if introduction.begun:
        if not introduction.keep(payload):
            connection.goodbye(CloseCode.TOO_MANY, 0)
        return None
    identity: int | str | None = None
    try:
        frame = frames.parse(payload)
        identity = frame.id
        if frame.authenticate is None:
            raise Unauthorized('expected {"authenticate": {…}} as the first frame')
        return _begin(door, connection, introduction, identity, frame.authenticate)
    except GatewayError as error:
        _refuse(connection, error.extra.get("id", identity), error)
        fatal = error.extra.get("fatal")
        connection.goodbye(CloseCode.BAD_FRAME if fatal else CloseCode.UNAUTHORIZED, 0)
    return None


def _begin(
    door: Door,
    connection: Talker,
    introduction: Introduction,
    identity: int | str | None,
    wish: frames.Introduce,
) -> asyncio.Task[None]:
    """Look at what a connection says of itself; what it says meanwhile waits. Raises `BadFrame`."""
    caller = connection.caller
    shown = framed(wish.token, wish.ticket)
    if not caller.principal.anonymous:
        raise BadFrame('this connection is authenticated: expected {"refresh": {…}}')
    introduction.begun = True
    door.introductions[connection] = introduction
    connection.caller = replace(caller, principal=UNKNOWN)
    # It has said so in time. If that takes too long now it is not at fault, and shall come back.
    door.hub.expiry.set(connection, time.time() + LONGEST_LOOK, CloseCode.SHUTDOWN)
    # Behind the subscriptions that it asked for before: they count for its quota too.
    work = partial(_authenticate, door, connection, introduction, identity, shown)
    return door.spawn_in_turn(connection, work)


async def _authenticate(
    door: Door,
    connection: Talker,
    introduction: Introduction,
    identity: int | str | None,
    shown: Credential,
) -> None:
    wanted = len(introduction.channels)
    try:
        caller = await door.doorkeeper.admit(shown, connection.caller)
        await door.dispatcher.guard.check_owner(introduction.channels, caller)
        holding = await _enter(door, connection, caller, wanted)
    except GatewayError as error:
        _refuse(connection, identity, error)
        connection.goodbye(*ending(error))
        return
    door.introductions.pop(connection, None)
    if not _become(door, connection, caller):
        return
    connection.write(
        connection.wrap(frames.authenticated(identity, "authenticated", caller.principal))
    )
    _judge(door, connection)
    channels, query = introduction.channels, introduction.query
    if channels and not subscribe_from_url(door, connection, channels, query):
        holding.unsubscribe(wanted)
    for payload in introduction.frames:
        receive(door, connection, payload)


async def _enter(door: Door, connection: Talker, caller: Caller, wanted: int) -> Holding:
    """Count a connection as the caller's, which has counted as its address's only so far.

    Raises as `Guard.enter` does.
    """
    earlier = door.holdings.pop(connection, None)
    if earlier is not None:
        earlier.close()
    subscriptions = wanted + len(connection.audiences)
    holding = await door.dispatcher.guard.enter(caller, subscriptions=subscriptions)
    door.hold(connection, holding)
    return holding


async def _refresh(
    door: Door, connection: Talker, identity: int | str | None, shown: Credential
) -> None:
    """Let a connection stay for longer, and look again at what it hears."""
    try:
        caller = await door.doorkeeper.refresh(shown, connection.caller)
    except GatewayError as error:
        _refuse(connection, identity, error)
        return
    if not _become(door, connection, caller):
        return
    answer = frames.authenticated(identity, "refreshed", caller.principal)
    connection.write(connection.wrap(answer))
    _judge(door, connection)


def _judge(door: Door, connection: Talker) -> None:
    """End the subscriptions that the caller, who has changed, may not have any more."""
    for audience in connection.audiences:
        channel = audience.channel.decode()
        try:
            door.dispatcher.guard.check_channel(channel, connection.caller)
        except GatewayError as error:
            door.hub.unsubscribe(connection, channel)
            door.hub.answer(connection, connection.wrap(frames.withdrawn(channel, error)))


def _become(door: Door, connection: Talker, caller: Caller) -> bool:
    """Have a connection speak for a caller from now on. Returns False if it ended meanwhile."""
    if connection.closed:
        return False
    connection.caller = caller
    door.hub.expiry.set(connection, caller.principal.expires, CloseCode.TOKEN_EXPIRED)
    return door.admit(connection)


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
    start = parse_after(after)
    request = Request(
        channels,
        start,
        acknowledge=lambda standings: b"".join(
            [connection.wrap(answer) for answer in frames.subscribed(identity, standings, paces)]
        ),
        refuse=lambda error: _refuse(connection, identity, error),
        paces=paces,
        reserved=door.dispatcher.guard.reserved(channels, start, connection.caller),
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
