"""Attempts at commands, as the log knows them: counted before they run, committed in one step."""

import logging
from collections.abc import Sequence
from typing import NamedTuple

from gateway.broker.eventlog import publication_arguments
from gateway.broker.keys import Keys
from gateway.broker.scripts import Pipeline
from gateway.broker.streams import CONSUMER, GROUP, Delivery
from gateway.commands import Status
from gateway.events import Publication

logger = logging.getLogger(__name__)


class Attempt(NamedTuple):
    """An attempt at a command that was begun."""

    number: int
    """Counts from 1 on, over the whole life of the command."""
    base: int
    """Attempts that do not count: made before the command was last redriven, or handed back."""
    lost: bool
    """The attempt before it was begun and never settled."""


class Letter(NamedTuple):
    """A dead letter on its way into the log."""

    reason: str
    type: str
    document: bytes
    """A `DeadLetter` in JSON, but for its failures: they are known to the log alone."""


class Settlement(NamedTuple):
    """What came of an attempt."""

    status: Status
    done: bool
    """The command is finished: acknowledge it."""
    attempt: int
    """The number of the attempt."""
    publications: Sequence[Publication]
    result: bytes = b""
    """JSON; empty for none."""
    error: str = ""
    finished_at: str = ""
    retry_in_ms: int = 0
    """How long no other attempt may start, by whomever, unless it is done."""
    failure: bytes = b""
    """The attempt, if it failed: a `Failure` in JSON."""
    letter: Letter | None = None
    """The dead letter that the command becomes."""


class Commits:
    """Counts the attempts of workers and commits what came of them."""

    def __init__(
        self,
        pipeline: Pipeline,
        keys: Keys,
        *,
        log_size: int,
        status_ttl_ms: int,
        max_dead_letters: int,
    ) -> None:
        self._pipeline = pipeline
        self._keys = keys
        self._log_size = log_size
        self._status_ttl_ms = status_ttl_ms
        self._max_dead_letters = max_dead_letters

    async def hand_back(self, delivery: Delivery, command_id: str, token: str) -> bool:
        """Take back an attempt that was begun and will not be settled: it does not count.

        Returns False if it is not this worker's to take back. Raises `BrokerUnavailable`.
        """
        keys = self._keys
        answer = await self._pipeline.call(
            "hand_back",
            [keys.lease(delivery.stream, delivery.partition), keys.status(command_id)],
            [token],
        )
        return bool(answer)

    async def start(
        self,
        delivery: Delivery,
        command_id: str,
        token: str,
        *,
        taken: bool,
        run: str,
        limit: int,
        time: str,
        started: Sequence[bytes],
        channel: Publication,
    ) -> Attempt | int | None:
        """Count an attempt and publish that it started.

        A command that nobody has `taken` yet is taken in the same step, if it is the next one.
        `run` names the attempt: asked again with the same one, because the answer was lost, it is
        not counted again. `started` is the event in three pieces, to be joined by the number of
        the attempt; `channel` says where it goes (its `event` is not used). Beyond `limit` nothing
        is counted or published; the number is then one more than that of the last attempt.
        An attempt that was begun earlier and never settled is put down as failed at `time`.

        Returns 0 if the lease is not this worker's, None if the command is settled already, and
        less than 0 if it is too early for the next attempt: the milliseconds that are left. None
        also if it was to be taken and is not the next one; then `reclaim` its partition, because
        another one may have been taken.
        Raises `BrokerUnavailable`.
        """
        keys = self._keys
        answer = await self._pipeline.call(
            "start",
            [
                keys.log,
                keys.events,
                keys.lease(delivery.stream, delivery.partition),
                keys.commands(delivery.stream, delivery.partition),
                keys.status(command_id),
                keys.history(channel.channel),
                keys.floor(channel.channel),
            ],
            [
                self._log_size,
                token,
                GROUP,
                delivery.entry,
                "" if taken else CONSUMER,
                run,
                limit,
                time,
                channel.channel,
                channel.size,
                channel.ttl_ms,
                *started,
            ],
        )
        if not isinstance(answer, list):
            early: int | None = answer
            return early
        number, base, lost = answer
        return Attempt(number, base, bool(lost))

    async def settle(
        self, delivery: Delivery, command_id: str, token: str, settlement: Settlement
    ) -> bool:
        """Commit what came of an attempt: status, events, acknowledgement, in one atomic step.

        Returns False, with nothing changed, if the lease on the partition is not this worker's
        (its token is a fence). An attempt that was settled before is not settled again.

        Raises:
            BrokerUnavailable: it is then unknown whether it was committed; it can be tried again.
        """
        keys = self._keys
        names, arguments = publication_arguments(keys, settlement.publications)
        letter = settlement.letter
        answer = await self._pipeline.call(
            "settle",
            [
                keys.log,
                keys.events,
                keys.lease(delivery.stream, delivery.partition),
                keys.commands(delivery.stream, delivery.partition),
                keys.status(command_id),
                keys.dead_letters,
                keys.dead_letter_index,
                keys.dead_letter_counts,
                *names,
            ],
            [
                self._log_size,
                token,
                GROUP,
                delivery.entry,
                settlement.attempt,
                int(settlement.done),
                settlement.status,
                settlement.result,
                settlement.error,
                settlement.finished_at,
                self._status_ttl_ms,
                settlement.retry_in_ms,
                settlement.failure,
                letter.reason if letter else "",
                command_id,
                letter.type if letter else "",
                delivery.stream,
                letter.document if letter else "",
                delivery.envelope if letter else "",
                self._max_dead_letters,
                *arguments,
            ],
        )
        if answer == 0:
            return False
        if answer:
            dropped = b", ".join(answer).decode()
            logger.warning("too many dead letters; the oldest are gone for good: %s", dropped)
        return True
