"""Carries one command from its entry to its outcome: count the attempt, call, commit."""

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from gateway.broker.commits import Attempt, Commits, Settlement
from gateway.broker.deadletters import Error, Reason
from gateway.broker.streams import CommandStreams
from gateway.commands import Command, Envelope, started_event
from gateway.errors import BrokerUnavailable
from gateway.events import now
from gateway.worker.calling import call
from gateway.worker.deadletters import error_of
from gateway.worker.handlers import BadAnswer, Outcome, Rejected
from gateway.worker.loading import Handler, Handlers
from gateway.worker.partitions import Job, Partition
from gateway.worker.quarantine import Quarantine
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
        commits: Commits,
        handlers: Handlers,
        settlements: Settlements,
        *,
        token: str,
        concurrency: int,
    ) -> None:
        self._streams = streams
        self._commits = commits
        self._handlers = handlers
        self._settlements = settlements
        self._token = token
        self._slots = asyncio.Semaphore(concurrency)
        self._quarantine = Quarantine()
        self._runs = itertools.count(1)

    @property
    def full(self) -> bool:
        """Whether another command would have to wait for one that runs."""
        return self._slots.locked()

    async def carry(
        self, job: Job, partition: Partition, *, on_settling: Callable[[], object]
    ) -> float | None:
        """Try a command once, and commit what came of it.

        `on_settling` is called before it is settled for good: what is asked of the broker from then
        on comes after that.
        Returns the seconds until it may be tried again; None if it is done.
        Cancelling cancels the handler; its attempt is made again by whoever holds the partition
        next, and stays counted unless it is handed back.

        Raises:
            LeaseLost: the partition is somebody else's.
        """
        if job.parked and not await self._read_again(job, partition):
            return None
        settlement = await self._attempt(job, partition)
        if isinstance(settlement, Settlement):
            if settlement.done:
                on_settling()
            await self._settle(job, partition, settlement)
            job.busy = False
            return None if settlement.done else settlement.retry_in_ms / 1000
        job.busy = False
        return settlement

    def keeps_order(self, job: Job) -> bool:
        """Return whether those of its key wait for a command that waits for its next attempt."""
        handler = self._handlers.get(job.envelope.type)
        return handler is None or handler.keep_order

    async def _read_again(self, job: Job, partition: Partition) -> bool:
        delivery = await self._insist(
            job, partition, lambda: self._streams.read_again(job.delivery)
        )
        if delivery is not None:
            partition.unpark(job, delivery)
        return delivery is not None

    async def _attempt(self, job: Job, partition: Partition) -> Settlement | float | None:
        """Start an attempt and run the handler.

        Returns what came of it; or the seconds until it may be started; or None if the command is
        settled already.
        """
        if job.suspect:
            async with self._quarantine.alone():
                return await self._attempt_in_turn(job, partition)
        return await self._attempt_in_turn(job, partition)

    async def _attempt_in_turn(self, job: Job, partition: Partition) -> Settlement | float | None:
        async with self._slots:
            job.busy = True
            attempt = await self._start(job, partition)
            await job.await_turn()
            if attempt is None:
                return None
            job.taken = True
            if isinstance(attempt, int) and attempt < 0:
                return -attempt / 1000
            if isinstance(attempt, int) or not partition.held:
                raise LeaseLost
            settlement = await self._run(job, attempt)
        job.crashes = 0
        return settlement

    async def _start(self, job: Job, partition: Partition) -> Attempt | int | None:
        handler = self._handlers.get(job.envelope.type)
        run = f"{self._token}-{next(self._runs)}"
        time = now()
        started = started_event(job.envelope, time=time)
        channel = self._settlements.life(job.envelope)
        return await self._insist(
            job,
            partition,
            lambda: self._commits.start(
                job.delivery,
                job.envelope.id,
                self._token,
                taken=job.taken,
                run=run,
                limit=handler.attempts if handler else UNLIMITED,
                time=time,
                started=started,
                channel=channel,
            ),
        )

    async def _run(self, job: Job, attempt: Attempt) -> Settlement:
        """Run the handler and return what came of it, whatever that is."""
        envelope = job.envelope
        number = attempt.number
        handler = self._handlers.get(envelope.type)
        if job.mistake:
            return self._give_up(job, number, Reason.ENVELOPE, Error("BadEnvelope", job.mistake))
        if handler is None:
            error = Error("NoHandler", f"this worker has no handler of {envelope.type!r}")
            return self._give_up(job, number, Reason.HANDLER, error)
        if number > attempt.base + handler.attempts:
            return self._exhausted(job, attempt)
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
        except handler.never_retry as error:
            return self._give_up(job, number, Reason.NEVER, error_of(error))
        except Exception as error:  # noqa: BLE001  whatever a handler raises is a failed attempt
            return self._failed(job, handler, attempt, error_of(error))
        try:
            if isinstance(answer, Rejected):
                return self._settlements.rejected(envelope, number, answer)
            return self._settlements.succeeded(envelope, number, answer)
        except Exception as error:  # noqa: BLE001  it holds the user's objects; no retry mends them
            return self._give_up(job, number, Reason.ANSWER, error_of(error))

    def _exhausted(self, job: Job, attempt: Attempt) -> Settlement:
        """The command had all its attempts, and the last one was not the end of it."""
        last = attempt.number - 1
        if attempt.lost:
            error = Error("WorkerDied", f"its worker died or was stopped during attempt {last}")
            return self._give_up(job, last, Reason.CRASH, error, known=True)
        error = Error("TooManyAttempts", f"attempt {last} failed, and its handler allows no more")
        return self._give_up(job, last, Reason.ATTEMPTS, error, known=True)

    def _failed(self, job: Job, handler: Handler, attempt: Attempt, error: Error) -> Settlement:
        number, tries = attempt.number, attempt.number - attempt.base
        if tries >= handler.attempts:
            return self._give_up(job, number, Reason.ATTEMPTS, error)
        delay = handler.backoff.delay(tries)
        logger.warning(
            "attempt %d of %d at %s %s failed, the next follows in %d ms: %s",
            *(number, attempt.base + handler.attempts, job.envelope.type, job.envelope.id),
            *(delay * 1000, error),
            extra=_told(job, number, error, traceback=tries == 1),
        )
        return self._settlements.retrying(job.envelope, number, error, delay)

    def _give_up(
        self, job: Job, number: int, reason: Reason, error: Error, *, known: bool = False
    ) -> Settlement:
        logger.error(
            "%s %s becomes a dead letter after attempt %d (%s): %s",
            *(job.envelope.type, job.envelope.id, number, reason, error),
            extra=_told(job, number, error) | {"reason": reason},
        )
        return self._settlements.dead_lettered(
            job.delivery, job.envelope, number, reason, error, known=known
        )

    async def _settle(self, job: Job, partition: Partition, settlement: Settlement) -> None:
        committed = await self._insist(
            job,
            partition,
            lambda: self._commits.settle(job.delivery, job.envelope.id, self._token, settlement),
        )
        if not committed:
            raise LeaseLost

    async def _insist(self, job: Job, partition: Partition, step: Callable[[], Awaitable[T]]) -> T:
        """Take a step again and again while the broker is away and the lease may still be ours.

        The first time in the round trip of the one before it, later only when that is settled.
        """
        for tries in itertools.count(1):
            try:
                return await step()
            except BrokerUnavailable as error:
                if not partition.held:
                    raise LeaseLost from error
            await asyncio.sleep(BROKER_BACKOFF.delay(tries))
            await job.await_turn()
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
        authclaims=envelope.authclaims,
    )


def _told(job: Job, number: int, error: Error, *, traceback: bool = True) -> dict[str, object]:
    """What a log line tells programs beside its sentence, and the traceback below it."""
    return {
        "command": job.envelope.id,
        "type": job.envelope.type,
        "attempt": number,
        "traceback": error.traceback.rstrip() if traceback else "",
    }
