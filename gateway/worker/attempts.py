"""Carries one command from its entry to its outcome: count the attempt, call, commit."""

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from gateway.broker.streams import CommandStreams, Settlement
from gateway.commands import Command, Envelope, started_event
from gateway.errors import BrokerUnavailable
from gateway.events import now
from gateway.worker.calling import call
from gateway.worker.deadletters import Error, Reason, error_of
from gateway.worker.handlers import BadAnswer, Outcome, Rejected
from gateway.worker.loading import Handler, Handlers
from gateway.worker.partitions import Job, Partition
from gateway.worker.retries import Backoff
from gateway.worker.settlements import Settlements

T = TypeVar("T")

BROKER_BACKOFF = Backoff(0.1, 2.0)
"""Between two tries of a step while the broker is away: it should not be missed for long."""

UNLIMITED = 2**31
"""Attempts of a command that has no handler to say how many it may have."""

logger = logging.getLogger(__name__)


class LeaseLost(Exception):
    """The partition is not this worker's any more: somebody else will do what was under way."""


class Attempts:
    """Tries commands until they are done."""

    def __init__(
        self,
        streams: CommandStreams,
        handlers: Handlers,
        settlements: Settlements,
        *,
        token: str,
        concurrency: int,
    ) -> None:
        self._streams = streams
        self._handlers = handlers
        self._settlements = settlements
        self._token = token
        self._slots = asyncio.Semaphore(concurrency)
        self._quarantine = asyncio.Lock()
        self._runs = itertools.count(1)

    async def carry(self, job: Job, partition: Partition) -> None:
        """Return once a command is done, or is left to whoever holds the partition next.

        Cancelling cancels the handler; its attempt stays counted and is made again by whoever
        holds the partition next.

        Raises:
            LeaseLost: the partition is somebody else's.
        """
        delay = 0.0
        while not partition.closing:
            if delay:
                await asyncio.sleep(delay)  # holds back the commands of its key, but takes no slot
            settlement = await self._attempt(job, partition)
            if settlement is None:
                return
            if isinstance(settlement, Settlement):
                await self._settle(job, partition, settlement)
                if settlement.done:
                    return
                delay = settlement.retry_in_ms / 1000
            else:
                delay = settlement
            job.busy = False

    async def _attempt(self, job: Job, partition: Partition) -> Settlement | float | None:
        """Start an attempt and run the handler.

        Returns what came of it; or the seconds until it may be started; or None if the command is
        settled already.
        """
        if job.suspect:
            async with self._quarantine:
                return await self._attempt_in_turn(job, partition)
        return await self._attempt_in_turn(job, partition)

    async def _attempt_in_turn(self, job: Job, partition: Partition) -> Settlement | float | None:
        async with self._slots:
            job.busy = True
            number = await self._start(job, partition)
            if number is None:
                return None
            if number < 0:
                return -number / 1000
            if number == 0 or not partition.held:
                raise LeaseLost
            settlement = await self._run(job, number)
        job.crashes = 0
        return settlement

    async def _start(self, job: Job, partition: Partition) -> int | None:
        handler = self._handlers.get(job.envelope.type)
        run = f"{self._token}-{next(self._runs)}"
        started = started_event(job.envelope, time=now())
        channel = self._settlements.life(job.envelope)
        return await self._insist(
            partition,
            lambda: self._streams.start(
                job.delivery,
                job.envelope.id,
                self._token,
                run=run,
                limit=handler.attempts if handler else UNLIMITED,
                started=started,
                channel=channel,
            ),
        )

    async def _run(self, job: Job, number: int) -> Settlement:
        """Run the handler and return what came of it, whatever that is."""
        envelope = job.envelope
        handler = self._handlers.get(envelope.type)
        if job.mistake:
            return self._give_up(job, number, Reason.ENVELOPE, Error("BadEnvelope", job.mistake))
        if handler is None:
            error = Error("NoHandler", f"this worker has no handler of {envelope.type!r}")
            return self._give_up(job, number, Reason.HANDLER, error)
        if number > handler.attempts:
            error = Error("WorkerDied", f"its worker died during attempt {number - 1}")
            return self._give_up(job, number - 1, Reason.CRASH, error)
        try:
            command = _command(envelope, handler, number)
        except Exception as error:  # noqa: BLE001  a payload type may run code of its user's
            return self._give_up(job, number, Reason.DATA, error_of(error))
        try:
            answer: Outcome | Rejected = await call(handler, command)
        except Rejected as no:
            answer = no
        except BadAnswer as error:
            return self._give_up(job, number, Reason.ANSWER, error_of(error))
        except Exception as error:  # noqa: BLE001  whatever a handler raises is a failed attempt
            return self._failed(job, handler, number, error_of(error))
        try:
            if isinstance(answer, Rejected):
                return self._settlements.rejected(envelope, number, answer)
            return self._settlements.succeeded(envelope, number, answer)
        except Exception as error:  # noqa: BLE001  it holds the user's objects; no retry mends them
            return self._give_up(job, number, Reason.ANSWER, error_of(error))

    def _failed(self, job: Job, handler: Handler, number: int, error: Error) -> Settlement:
        if number >= handler.attempts:
            return self._give_up(job, number, Reason.ATTEMPTS, error)
        delay = handler.backoff.delay(number)
        logger.warning(
            "attempt %d of %d at %s %s failed, the next follows in %.1f s: %s",
            *(number, handler.attempts, job.envelope.type, job.envelope.id, delay, error),
        )
        return self._settlements.retrying(job.envelope, number, error, delay)

    def _give_up(self, job: Job, number: int, reason: Reason, error: Error) -> Settlement:
        logger.error(
            "%s %s becomes a dead letter after attempt %d (%s): %s\n%s",
            *(job.envelope.type, job.envelope.id, number, reason, error, error.traceback),
        )
        return self._settlements.dead_lettered(job.delivery, job.envelope, number, reason, error)

    async def _settle(self, job: Job, partition: Partition, settlement: Settlement) -> None:
        committed = await self._insist(
            partition,
            lambda: self._streams.settle(job.delivery, job.envelope.id, self._token, settlement),
        )
        if not committed:
            raise LeaseLost

    async def _insist(self, partition: Partition, step: Callable[[], Awaitable[T]]) -> T:
        """Take a step again and again while the broker is away and the lease may still be ours."""
        for tries in itertools.count(1):
            try:
                return await step()
            except BrokerUnavailable as error:
                if not partition.held:
                    raise LeaseLost from error
            await asyncio.sleep(BROKER_BACKOFF.delay(tries))
        raise AssertionError("unreachable")


def _command(envelope: Envelope, handler: Handler, number: int) -> Command[Any]:
    return Command(
        id=envelope.id,
        type=envelope.type,
        data=handler.decoder.decode(envelope.data),
        key=envelope.partitionkey,
        subject=envelope.subject,
        source=envelope.source,
        time=envelope.time,
        attempt=number,
        correlationid=envelope.correlationid,
        causationid=envelope.causationid,
        traceparent=envelope.traceparent,
        authtype=envelope.authtype,
        authid=envelope.authid,
    )
