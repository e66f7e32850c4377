"""The dispatcher: the one way in. Every door leads through here to the log."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple
from urllib.parse import quote, unquote

import msgspec

from gateway import idempotency
from gateway.admission import Admission
from gateway.broker.eventlog import EventLog
from gateway.broker.streams import CommandStreams
from gateway.commands import (
    FINAL,
    CommandStatus,
    Durability,
    Envelope,
    Status,
    channel_of,
    life_event,
)
from gateway.errors import (
    BadRequest,
    GatewayError,
    PayloadTooLarge,
    UnknownCommand,
)
from gateway.events import JSON, Event, Publication, new_id, now
from gateway.guard import Guard
from gateway.hub.hub import Hub
from gateway.hub.listener import Listener
from gateway.idempotency import Identity
from gateway.policy.documents import decode
from gateway.policy.permissions import Action
from gateway.policy.publishing import Publisher, check_size
from gateway.policy.routes import CommandRoute, CommandRoutes, Destination, merge_parameters
from gateway.principals import ANYBODY, Caller
from gateway.settings import Of
from gateway.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

_FINAL_TYPES = frozenset(f"command.{status}" for status in FINAL)


@dataclass(frozen=True, slots=True)
class Origin:
    """What the door knows of where a command comes from."""

    traceparent: str | None = None
    tracestate: str | None = None


NOWHERE = Origin()


class Answer(NamedTuple):
    """What became of a command by the time of the answer."""

    status: CommandStatus
    repeated: bool = False
    """It was accepted earlier already, with the same idempotency key."""
    headers: Mapping[str, str] = MappingProxyType({})
    """How the limits stand that concern it, for an answer over HTTP."""


class Published(NamedTuple):
    """What became of events."""

    ids: list[str]
    headers: Mapping[str, str] = MappingProxyType({})
    """How the limits stand that concern them, for an answer over HTTP."""


class _Received(NamedTuple):
    """A command that was found in order."""

    destination: Destination
    envelope: Envelope
    identity: Identity
    owner: str

    @property
    def in_memory(self) -> bool:
        """Whether its sender is answered before the broker. Not who asks what came of it before."""
        in_memory = self.destination.durability is Durability.MEMORY
        return in_memory and self.identity is idempotency.NONE


class Dispatcher:
    """Takes what callers send to the log, as far as the guard lets them.

    Commands are validated, routed and appended; events are published likewise.
    """

    def __init__(
        self,
        commands: CommandRoutes,
        guard: Guard,
        publisher: Publisher,
        streams: CommandStreams,
        log: EventLog,
        hub: Hub,
        admission: Admission,
        metrics: Metrics,
        *,
        max_body: int,
        claims: Sequence[str] = (),
    ) -> None:
        """`claims`: those of the sender that travel with a command."""
        self._commands = commands
        self.guard = guard
        """Who asks, and what they may do."""
        self._claims = tuple(claims)
        self._publisher = publisher
        self._streams = streams
        self._log = log
        self._hub = hub
        self._admission = admission
        self._metrics = metrics
        self._max_body = max_body
        self._sending: set[asyncio.Task[str]] = set()
        """Commands whose senders do not wait for the broker."""

    async def send(
        self,
        path: str,
        body: bytes,
        caller: Caller = ANYBODY,
        *,
        wait: float = 0,
        origin: Origin = NOWHERE,
        idempotency_key: str | None = None,
    ) -> Answer:
        """Append a command to the log and return its status: accepted.

        `path` is as in a URL: percent-encoded, without a query.
        With `wait` (seconds), wait so long for its outcome; the status may then be a final one.
        With an `idempotency_key` a repetition has the answer of the first: it is not appended.
        Cancelling does not take a command back that was sent to the broker.

        Raises:
            UnknownCommand: no configured command has this path.
            RateLimited: it comes more often than a limit allows.
            Forbidden, Unauthorized: the caller may not send it.
            PayloadTooLarge, BadRequest, ValidationFailed, Unroutable: the body is at fault.
            KeyReused: another command was sent with this key.
            StreamFull: too many commands wait already.
            Overloaded: too many requests wait for the broker.
            BrokerUnavailable: it is then unknown whether the command is in the log. Who gave a key
                can find out by asking again.
        """
        path = _decoded(path)
        found = self._commands.match(path)
        if found is None:
            raise UnknownCommand(f"no command is configured for the path {path[:200]!r}")
        allowance = await self.guard.charge(Of.COMMANDS, caller, command=found[0].type)
        with allowance:
            command = self._receive(path, *found, body, caller, origin, idempotency_key)
            answer = await self._answer(command, wait)
        return answer._replace(headers=allowance.headers)

    async def _answer(self, command: _Received, wait: float) -> Answer:
        if not wait:
            return await self._accept(command)
        with closing(self._listener(command.envelope.id)) as listener:
            answer = await self._accept(command)
            if not answer.repeated:
                return Answer(await _outcome(listener, wait) or answer.status)
        return Answer(await self._outcome_of_earlier(answer.status, wait), repeated=True)

    async def status(self, command_id: str, caller: Caller = ANYBODY) -> CommandStatus:
        """Return the status of a command. Somebody else's is as good as none.

        Raises `UnknownCommand`, `Overloaded`, `BrokerUnavailable`.
        """
        async with self._admission.admitted():
            status, (owner,) = await asyncio.gather(
                self._streams.status(command_id), self._streams.owners([command_id])
            )
        if not self.guard.owns(caller, owner):
            raise UnknownCommand(f"there is no command {command_id[:80]!r}, or no longer")
        return status

    async def publish(
        self, events: Sequence[Event], caller: Caller = ANYBODY, *, trusted: bool = False
    ) -> Published:
        """Append events, all or none.

        A `trusted` producer may publish to every channel, and say by whom an event was caused.

        Raises:
            RateLimited: more events come than a limit allows.
            Forbidden, Unauthorized: the caller may not publish to a channel of theirs.
            Unroutable: a feed cannot decide, or an event goes to a channel that is not configured.
            PayloadTooLarge: they are more than may be appended in one step.
            BrokerUnavailable: it is then unknown whether they are in the log.
        """
        allowance = await self.guard.charge(Of.EVENTS, caller, count=len(events))
        with allowance:
            await self._publish(events, caller, trusted=trusted)
        return Published([event.id or "" for event in events], allowance.headers)

    async def _publish(self, events: Sequence[Event], caller: Caller, *, trusted: bool) -> None:
        if not trusted:
            events = [self._signed(event, caller) for event in events]
        principal = caller.principal
        sender = "" if trusted else principal.name or principal.id
        publications = []
        count = size = 0
        for event in events:
            identity = idempotency.of_event(event, sender=sender)
            found = self._publisher.publications(event)
            count, size = count + len(found), size + sum(len(each.event) for each in found)
            check_size(count, size)
            # What goes nowhere is kept nowhere: no rule says who may send that.
            publications.append((identity if found else idempotency.NONE, found))
        if not trusted:
            for name in {each.channel for _, found in publications for each in found}:
                self.guard.check_channel(name, caller, Action.PUBLISH)
        if publications:
            async with self._admission.admitted(size=size):
                await self._log.publish(publications)
            self._metrics.published.inc(len(events))

    def _signed(self, event: Event, caller: Caller) -> Event:
        """Return an event that says who published it, whatever its sender says."""
        principal = caller.principal
        known = not principal.anonymous
        return msgspec.structs.replace(
            event,
            authtype=principal.type if known else None,
            authid=principal.id if known else None,
        )

    def _receive(
        self,
        path: str,
        route: CommandRoute,
        parameters: Mapping[str, str],
        body: bytes,
        caller: Caller,
        origin: Origin,
        key: str | None,
    ) -> _Received:
        """Check a command and decide where it goes. Sends nothing."""
        if len(body) > self._max_body:
            raise PayloadTooLarge(f"expected at most {self._max_body} bytes but got {len(body)}")
        sent = decode(body or b"{}")
        data = merge_parameters(sent, parameters)
        self.guard.check_command(route, caller, data, parameters)
        route.validate(data)
        principal = caller.principal
        envelope = Envelope(
            id=new_id(),
            type=route.type,
            source=quote(path),
            time=now(),
            datacontenttype=JSON,
            partitionkey=route.key_for(data, parameters),
            traceparent=origin.traceparent,
            tracestate=origin.tracestate,
            authtype=None if principal.anonymous else principal.type,
            authid=None if principal.anonymous else principal.id,
            authclaims=principal.chosen(self._claims),
            data=msgspec.Raw(body if body and data is sent else msgspec.json.encode(data)),
        )
        return _Received(
            route.destination(data, parameters),
            envelope,
            idempotency.NONE
            if key is None
            else idempotency.of_command(key, path, sent, sender=principal.name),
            principal.name,
        )

    async def _accept(self, command: _Received) -> Answer:
        envelope = command.envelope
        status = CommandStatus(
            id=envelope.id,
            type=envelope.type,
            status=Status.ACCEPTED,
            attempts=0,
            accepted_at=envelope.time,
        )
        event = life_event(status, envelope, time=envelope.time)
        accepted: Publication = self._publisher.publication(channel_of(envelope.id), event)
        encoded = msgspec.json.encode(envelope)
        if command.in_memory:
            self._admission.check(command.destination.priority, len(encoded))
            self._append_later(command, encoded, accepted)
        else:
            status.id = await self._append(command, encoded, accepted)
        return Answer(status, repeated=status.id != envelope.id)

    async def _append(self, command: _Received, encoded: bytes, accepted: Publication) -> str:
        stream, priority, durability = command.destination
        async with self._admission.admitted(
            priority, size=len(encoded), answered=command.in_memory
        ):
            id = await self._streams.accept(
                stream,
                command.envelope,
                encoded,
                accepted,
                identity=command.identity,
                owner=command.owner,
                sync=durability is Durability.FSYNC,
            )
        if id == command.envelope.id:
            self._metrics.accepted.labels(command.envelope.type).inc()
        return id

    def _append_later(self, command: _Received, encoded: bytes, accepted: Publication) -> None:
        task = asyncio.create_task(self._append(command, encoded, accepted))
        self._sending.add(task)
        task.add_done_callback(self._sent)

    def _sent(self, task: asyncio.Task[str]) -> None:
        self._sending.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        self._metrics.lost.inc()
        if not isinstance(error, GatewayError):  # that the broker is away was said already
            logger.error("a command could not be appended", exc_info=error)

    async def drained(self) -> None:
        """Wait until everything that was promised by `durability = "memory"` was sent."""
        if self._sending:
            await asyncio.wait(self._sending)

    async def _outcome_of_earlier(self, status: CommandStatus, wait: float) -> CommandStatus:
        """Return what came, or comes in time, of a command that was accepted earlier."""
        with closing(self._listener(status.id)) as listener:
            try:
                known = await self._streams.status(status.id)
            except UnknownCommand:  # finished, and forgotten since
                return status
            if known.status in FINAL:
                return known
            return await _outcome(listener, wait) or status

    def _listener(self, command_id: str) -> Listener:
        return Listener(self._hub, channel_of(command_id), _is_final)


async def _outcome(listener: Listener, wait: float) -> CommandStatus | None:
    try:
        async with asyncio.timeout(wait):
            event = await listener.event()
    except TimeoutError:
        return None
    try:
        return msgspec.convert(event["data"], CommandStatus) if event else None
    except msgspec.ValidationError:  # whoever says so, it is no outcome
        return None


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
