"""The dispatcher: the one way in. Every door leads through here to the log."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote, unquote

import msgspec

from gateway.broker.eventlog import EventLog
from gateway.broker.streams import CommandStreams
from gateway.commands import (
    FINAL,
    CommandStatus,
    Envelope,
    Status,
    channel_of,
    life_event,
)
from gateway.errors import BadRequest, PayloadTooLarge, UnknownCommand
from gateway.events import JSON, Event, Publication, new_id, now
from gateway.hub.hub import Hub
from gateway.hub.listener import Listener
from gateway.policy.documents import decode
from gateway.policy.publishing import Publisher
from gateway.policy.routes import CommandRoutes, merge_parameters

_FINAL_TYPES = frozenset(f"command.{status}" for status in FINAL)


@dataclass(frozen=True, slots=True)
class Origin:
    """What the door knows of where a command comes from."""

    traceparent: str | None = None
    tracestate: str | None = None


NOWHERE = Origin()


class Dispatcher:
    """Validates commands, routes them and appends them to the log; publishes events likewise."""

    def __init__(
        self,
        commands: CommandRoutes,
        publisher: Publisher,
        streams: CommandStreams,
        log: EventLog,
        hub: Hub,
        *,
        max_body: int,
    ) -> None:
        self._commands = commands
        self._publisher = publisher
        self._streams = streams
        self._log = log
        self._hub = hub
        self._max_body = max_body

    async def send(
        self, path: str, body: bytes, *, wait: float = 0, origin: Origin = NOWHERE
    ) -> CommandStatus:
        """Append a command to the log and return its status: accepted.

        `path` is as in a URL: percent-encoded, without a query.
        With `wait` (seconds), wait so long for its outcome; the status may then be a final one.
        Cancelling does not take a command back that was sent to the broker.

        Raises:
            UnknownCommand: no configured command has this path.
            PayloadTooLarge, BadRequest, ValidationFailed, Unroutable: the body is at fault.
            BrokerUnavailable: it is then unknown whether the command is in the log.
        """
        stream, envelope = self._receive(path, body, origin)
        if not wait:
            return await self._accept(stream, envelope)
        listener = Listener(self._hub, channel_of(envelope.id), _is_final)
        try:
            status = await self._accept(stream, envelope)
            try:
                async with asyncio.timeout(wait):
                    event = await listener.event()
            except TimeoutError:
                return status
            return msgspec.convert(event["data"], CommandStatus) if event else status
        finally:
            listener.close()

    async def status(self, command_id: str) -> CommandStatus:
        """Return the status of a command. Raises `UnknownCommand`, `BrokerUnavailable`."""
        return await self._streams.status(command_id)

    async def publish(self, events: Sequence[Event]) -> list[str]:
        """Append events that a trusted producer made, all or none, and return their ids.

        Raises:
            Unroutable: a feed cannot decide, or an event goes to a channel that is not configured.
            BrokerUnavailable: it is then unknown whether they are in the log.
        """
        publications = [each for event in events for each in self._publisher.publications(event)]
        if publications:
            await self._log.append(publications)
        return [event.id or "" for event in events]

    def _receive(self, path: str, body: bytes, origin: Origin) -> tuple[str, Envelope]:
        """Check a command and return its stream and its envelope. Decides, sends nothing."""
        path = _decoded(path)
        found = self._commands.match(path)
        if found is None:
            raise UnknownCommand(f"no command is configured for the path {path[:200]!r}")
        route, parameters = found
        if len(body) > self._max_body:
            raise PayloadTooLarge(f"expected at most {self._max_body} bytes but got {len(body)}")
        sent = decode(body or b"{}")
        data = merge_parameters(sent, parameters)
        route.validate(data)
        envelope = Envelope(
            id=new_id(),
            type=route.type,
            source=quote(path),
            time=now(),
            datacontenttype=JSON,
            partitionkey=route.key_for(data, parameters),
            traceparent=origin.traceparent,
            tracestate=origin.tracestate,
            data=msgspec.Raw(body if body and data is sent else msgspec.json.encode(data)),
        )
        return route.stream_for(data, parameters), envelope

    async def _accept(self, stream: str, envelope: Envelope) -> CommandStatus:
        status = CommandStatus(
            id=envelope.id,
            type=envelope.type,
            status=Status.ACCEPTED,
            attempts=0,
            accepted_at=envelope.time,
        )
        event = life_event(status, envelope, time=envelope.time)
        accepted: Publication = self._publisher.publication(channel_of(envelope.id), event)
        await self._streams.accept(stream, envelope, msgspec.json.encode(envelope), accepted)
        return status


def _decoded(path: str) -> str:
    """Return a path of a URL as routes know it. Raises `BadRequest`."""
    try:
        return unquote(path, errors="strict")
    except UnicodeDecodeError:
        raise BadRequest(
            f"expected percent-encoded UTF-8 but got the path {path[:200]!r}"
        ) from None


def _is_final(event: Mapping[str, object]) -> bool:
    return event["type"] in _FINAL_TYPES
