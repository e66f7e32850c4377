"""What came of an attempt, put into the words of the log: status, events, dead letter. Pure."""

from collections.abc import Iterable, Mapping

import msgspec

from gateway.broker.commits import Settlement
from gateway.broker.deadletters import Error, Reason
from gateway.broker.streams import Delivery
from gateway.commands import FINAL, CommandStatus, Envelope, Status, channel_of, life_event
from gateway.events import Event, Publication, now
from gateway.policy.publishing import Publisher, check_size
from gateway.worker.deadletters import dead_letter, failure, public
from gateway.worker.handlers import Outcome, Rejected


class Settlements:
    """Makes settlements. `attempt` is always the number of the attempt that is settled."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._life = publisher.publication(channel_of("any"), b"")

    def succeeded(self, envelope: Envelope, attempt: int, outcome: Outcome) -> Settlement:
        """The handler returned.

        Raises:
            Unroutable: an event goes to a channel that there is not, or no feed can decide.
            PayloadTooLarge: it is all together more than one commit may hold.
            TypeError, ValueError: JSON cannot hold an event's data, or the result.
        """
        publications = self._caused(envelope, outcome.events)
        result = b"" if outcome.result is None else msgspec.json.encode(outcome.result)
        check_size(0, len(result))
        status = _status(envelope, Status.SUCCEEDED, attempt, finished_at=now())
        status.result = outcome.result
        return self._settlement(envelope, status, publications, result=result)

    def rejected(self, envelope: Envelope, attempt: int, no: Rejected) -> Settlement:
        """The handler raised `Rejected`. Raises what `succeeded` does."""
        publications = self._caused(envelope, no.events)
        status = _status(
            envelope, Status.FAILED, attempt, error=no.reason or "rejected", finished_at=now()
        )
        return self._settlement(envelope, status, publications)

    def retrying(self, envelope: Envelope, attempt: int, error: Error, delay: float) -> Settlement:
        """The attempt failed, and another will follow after `delay` seconds."""
        status = _status(envelope, Status.RETRYING, attempt, error=public(error))
        delay_ms = int(delay * 1000)
        settlement = self._settlement(envelope, status, [], told={"retry_in_ms": delay_ms})
        return settlement._replace(
            retry_in_ms=delay_ms, failure=failure(error, attempt=attempt, at=now())
        )

    def dead_lettered(
        self,
        delivery: Delivery,
        envelope: Envelope,
        attempt: int,
        reason: Reason,
        error: Error,
        *,
        known: bool = False,
    ) -> Settlement:
        """The command is given up on. `known`: the log has every attempt that failed already."""
        at = now()
        told = public(error, reason)
        status = _status(envelope, Status.DEAD_LETTERED, attempt, error=told, finished_at=at)
        letter = dead_letter(
            delivery, envelope, reason=reason, error=error, attempts=attempt, at=at
        )
        settlement = self._settlement(envelope, status, [], told={"reason": reason})
        failed = b"" if known else failure(error, attempt=attempt, at=at)
        return settlement._replace(letter=letter, failure=failed)

    def life(self, envelope: Envelope, event: bytes = b"") -> Publication:
        """Return an event that tells of the command's life, for the command's own channel."""
        return self._life._replace(channel=channel_of(envelope.id), event=event)

    def _settlement(
        self,
        envelope: Envelope,
        status: CommandStatus,
        publications: list[Publication],
        *,
        told: Mapping[str, object] | None = None,
        result: bytes = b"",
    ) -> Settlement:
        """Add the event on the command's own channel, which also tells what is in `told`."""
        event = life_event(status, envelope, time=now(), **(told or {}))
        return Settlement(
            status=status.status,
            done=status.status in FINAL,
            attempt=status.attempts,
            publications=[*publications, self.life(envelope, event)],
            result=result,
            error=status.error or "",
            finished_at=status.finished_at or "",
        )

    def _caused(self, envelope: Envelope, events: Iterable[Event]) -> list[Publication]:
        publications = []
        size = 0
        for number, event in enumerate(events, 1):
            for publication in self._publisher.publications(caused(event, envelope, number)):
                publications.append(publication)
                size += len(publication.event)
                check_size(len(publications), size)
        return publications


def caused(event: Event, envelope: Envelope, number: int) -> Event:
    """Return an event with what it inherits from the command that caused it.

    Its id is the same each time the handler runs, unless the handler gave it one.
    """
    return msgspec.structs.replace(
        event,
        id=event.id or f"{envelope.id}-{number}",
        source=event.source or f"/handlers/{envelope.type}",
        correlationid=event.correlationid or envelope.correlationid or envelope.id,
        causationid=event.causationid or envelope.id,
        traceparent=event.traceparent or envelope.traceparent,
        tracestate=event.tracestate or (None if event.traceparent else envelope.tracestate),
        authtype=event.authtype or envelope.authtype,
        authid=event.authid or (None if event.authtype else envelope.authid),
    )


def _status(
    envelope: Envelope,
    status: Status,
    attempts: int,
    *,
    error: str | None = None,
    finished_at: str | None = None,
) -> CommandStatus:
    return CommandStatus(
        id=envelope.id,
        type=envelope.type,
        status=status,
        attempts=attempts,
        accepted_at=envelope.time,
        finished_at=finished_at,
        error=error,
    )
