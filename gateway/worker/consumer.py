"""The worker: reads the commands of its partitions and has them carried to their outcomes."""

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

from gateway.broker.broker import Broker
from gateway.broker.eventlog import Lost
from gateway.broker.line import Line
from gateway.broker.streams import Delivery
from gateway.config import Config
from gateway.errors import BrokerUnavailable
from gateway.policy.compiler import Policy
from gateway.policy.publishing import Publisher
from gateway.worker.attempts import BROKER_BACKOFF, Attempts, LeaseLost
from gateway.worker.holdings import BALANCE, Holdings
from gateway.worker.loading import Handlers
from gateway.worker.partitions import Job, Partition
from gateway.worker.settlements import Settlements
from gateway.worker.supervision import Link, Tasks

BLOCK_MS = 4000
"""How long one read waits for commands. It is cut short when there is something else to read."""

PREFETCH = 2
"""Commands of one partition that are read ahead, for each that may run at a time. Those that wait
for another of their key, or for their next attempt, are not among them: what comes after them would
wait with them."""

MAX_BYTES = 64 << 20
"""What the commands that were read and are not settled may take, but for the last read. The rest
waits in the log."""

PARK = MAX_BYTES // 2
"""Bytes from which on a command that has to wait keeps only its place here: 1 KiB, so that about
30,000 of them fit beside those."""

MIN_SIZE = 1024
"""Bytes that a command is supposed to have at least, until larger ones were seen."""

GRACE = 2.0
"""Seconds for handlers to end once they were cancelled."""

logger = logging.getLogger(__name__)


class Worker:
    """Handles the commands of some streams, together with all other workers of them.

    A broker that is away is waited for; nothing is lost meanwhile.
    """

    def __init__(
        self,
        broker: Broker,
        handlers: Handlers,
        policy: Policy,
        config: Config,
        *,
        streams: Sequence[str] | None = None,
        name: str | None = None,
    ) -> None:
        """Prepare a worker; `run` starts it.

        Without `streams` it takes part in those in which there can be commands that it has
        handlers of.
        """
        self.name = f"{name or socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        """What its leases say. No two workers ever have the same."""
        self._names = tuple(_streams_of(handlers, policy) if streams is None else streams)
        self._shutdown = config.worker.shutdown
        self._prefetch = PREFETCH * config.worker.concurrency
        self._streams = broker.commands
        self._line = Line(broker.blocking())
        self._stopping, self._changed, self._nudge = (asyncio.Event() for _ in range(3))
        self._waiting: asyncio.Timeout | None = None
        """Of the read that waits for commands: by it a change cuts the read short."""
        leases = broker.leases(self.name, ttl=config.worker.lease)
        self._pace = min(leases.ttl / 3, BALANCE)
        self._patience = leases.ttl / 3
        self._holdings = Holdings(
            leases, self._names, self._streams.partitions, on_change=self._change
        )
        self._commits = broker.commits
        self._attempts = Attempts(
            self._streams,
            self._commits,
            handlers,
            Settlements(Publisher(policy.feeds, policy.channels)),
            token=self.name,
            concurrency=config.worker.concurrency,
        )
        self._link = Link()
        self._tries = 0
        """Of reading, since it last succeeded."""
        self._largest = MIN_SIZE
        """Bytes of the largest command of late, by which the next ones are judged."""

    def stop(self) -> None:
        """Stop: begin nothing new, let what runs end. `run` returns once that is done."""
        self._stopping.set()

    async def run(self) -> None:
        """Work until `stop` is called. Can be called once.

        Handlers that still run then have `[worker] shutdown` seconds to end before they are
        cancelled; cancelling `run` cancels them at once. Either way the partitions are handed
        back, so that other workers go on right away, and whatever was not committed is for them.

        Raises:
            StartError: the streams were made with another number of partitions.
        """
        self._tasks = Tasks()
        reader = self._tasks.start(self._read())
        self._tasks.start(self._keep())
        logger.info("worker %s handles commands of %s", self.name, ", ".join(self._names))
        try:
            await self._tasks.watch(self._stopping.wait())
            reader.cancel()
            self._holdings.close()
            await self._tasks.watch(self._idle(), longest=self._shutdown)
        finally:
            interrupted = self._holdings.at_work()
            resisting = await self._tasks.cancel(GRACE)
            if resisting:
                logger.error("%d handlers resisted their cancellation", resisting)
            await self._hand_back([job for job in interrupted if job.busy])
            await self._holdings.leave()

    async def _hand_back(self, jobs: Sequence[Job]) -> None:
        """Leave commands whose handlers did not end in time to others, as if not tried."""
        if not jobs:
            return
        logger.warning("%d handlers did not end in time: other workers begin anew", len(jobs))
        with suppress(BrokerUnavailable):  # then it is as if this worker had died
            for job in jobs:
                await self._commits.hand_back(job.delivery, job.envelope.id, self.name)

    async def _idle(self) -> None:
        running = [task for each in self._holdings.held.values() for task in each.tasks]
        if running:
            await asyncio.wait(running)

    async def _keep(self) -> None:
        """Keep the leases, for as long as the worker lives."""
        while True:
            self._nudge.clear()
            try:
                async with asyncio.timeout(self._patience):
                    await self._holdings.tick()
                self._link.up()
            except (BrokerUnavailable, TimeoutError) as error:
                self._link.down(error)
            self._holdings.expire()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._pace):
                    await self._nudge.wait()

    async def _read(self) -> None:
        """Read commands, for as long as any are to be read."""
        while True:
            try:
                await self._read_while_connected()
            except BrokerUnavailable as error:
                self._link.down(error)
            self._tries += 1
            await asyncio.sleep(BROKER_BACKOFF.delay(self._tries))

    async def _read_while_connected(self) -> None:
        """Read commands until the log is lost. Raises `BrokerUnavailable`, `StartError`."""
        await self._streams.open(self._names)
        many = False
        while True:
            self._changed.clear()
            partitions = self._readable()
            if not partitions:
                await self._changed.wait()
                continue
            try:
                await self._reclaim([each for each in partitions if each.uncertain])
                # Where many came, more will have come meanwhile.
                take_up = self._take if many else self._await
                many = await take_up(partitions) > 1
            except Lost:
                logger.warning("the log was emptied; its streams are made anew")
                return

    def _readable(self) -> list[Partition]:
        """Return the partitions that have room for more commands; remember which have none."""
        room = self._holdings.bytes < MAX_BYTES
        partitions = []
        for partition in self._holdings.open():
            partition.full = not room or len(partition.tasks) >= self._prefetch
            if not partition.full:
                partitions.append(partition)
        return partitions

    async def _reclaim(self, partitions: Sequence[Partition]) -> None:
        """Take up what others left in partitions, before anything that is newer."""
        await asyncio.gather(*map(self._reclaim_one, partitions))

    async def _reclaim_one(self, partition: Partition) -> None:
        reclaimed = await self._streams.reclaim(partition.id, self.name)
        if reclaimed is None:
            self._holdings.lose(partition.id)
            return
        jobs = [Job(each) for each in reclaimed.deliveries if not partition.knows(each)]
        crashes = await self._streams.interrupted([job.envelope.id for job in jobs])
        for job, number in zip(jobs, crashes, strict=True):
            job.crashes = number
            self._add(partition, job)
        partition.newest = reclaimed.newest
        partition.uncertain = False

    async def _take(self, partitions: Sequence[Partition]) -> int:
        """Take new commands, and return how many they were."""
        asked = {each.id: each for each in partitions if each.certain}
        if not asked:
            return 0
        left = (MAX_BYTES - self._holdings.bytes) // (self._largest * len(asked))
        room = {id: self._prefetch - len(each.tasks) for id, each in asked.items()}
        try:
            taken = await self._streams.take(
                {id: max(1, min(count, left)) for id, count in room.items()}, self.name
            )
        except BaseException:  # the commands may have been taken, and the answer lost
            for partition in asked.values():
                partition.uncertain = True
            raise
        self._tries = 0
        for id in taken.foreign:
            self._holdings.lose(id)
        for delivery in taken.deliveries:
            partition = asked[delivery.stream, delivery.partition]
            partition.newest = delivery.entry
            # Where an older one turned out to be missing, these are reclaimed together with it.
            if not partition.uncertain and not partition.knows(delivery):
                self._add(partition, Job(delivery))
        sizes = [len(each.envelope) for each in taken.deliveries]
        self._largest = max(MIN_SIZE, self._largest // 2, *sizes)
        return len(taken.deliveries)

    async def _await(self, partitions: Sequence[Partition]) -> int:
        """Wait for commands, take them up, and return how many they were.

        Only the partitions that have some are asked for them: each that is asked keeps them
        waiting. A command that came alone is not asked for at all if it may begin.
        """
        shown = await self._wait(partitions)
        if not shown:  # after a time look at them all, whatever became of them
            return await self._take(partitions)
        asked = [each for each in shown if not self._begin(each, shown[each])]
        return len(shown) - len(asked) + await self._take(asked)

    def _begin(self, partition: Partition, deliveries: Sequence[Delivery]) -> bool:
        """Begin a command that came alone, if it need not wait: its first attempt takes it."""
        if len(deliveries) != 1 or self._attempts.full or not partition.certain:
            return False
        job = Job(deliveries[0], taken=False)
        if not partition.may_begin(job):
            return False
        partition.newest = job.delivery.entry
        self._largest = max(self._largest, len(job.delivery.envelope))
        self._add(partition, job)
        return True

    async def _wait(self, partitions: Sequence[Partition]) -> dict[Partition, Sequence[Delivery]]:
        """Wait until some of the partitions have commands, or there are others to read.

        Returns those that have some, with the first of them.
        """
        if self._changed.is_set():
            return {}
        newest = {each.id: each.newest for each in partitions}
        try:
            async with asyncio.timeout(None) as self._waiting:
                found = await self._streams.wait(self._line, newest, block_ms=BLOCK_MS)
        except TimeoutError:  # there are others to read
            return {}
        finally:
            self._waiting = None
        return {each: found[each.id] for each in partitions if each.id in found}

    def _change(self) -> None:
        """There are other partitions to read: whoever waits for commands looks again."""
        self._changed.set()
        if self._waiting is not None:
            self._waiting.reschedule(0)
            self._waiting = None

    def _add(self, partition: Partition, job: Job) -> None:
        """Let a command run, or wait behind the others of its key."""
        if not partition.add(job):
            self._park(partition, job)
        elif not partition.closing:
            self._start_lane(partition, job)

    def _park(self, partition: Partition, job: Job) -> None:
        """Put the bytes of a command that waits away, if there are too many here."""
        if self._holdings.bytes > PARK:
            partition.park(job)

    def _start_lane(self, partition: Partition, job: Job) -> None:
        task = self._tasks.start(self._work(partition, job))
        partition.tasks[task] = job
        task.add_done_callback(partial(self._lane_ended, partition))

    async def _work(self, partition: Partition, job: Job) -> None:
        """Carry a command on, then have the next of its key follow."""
        try:
            delay = await self._attempts.carry(
                job, partition, on_settling=partial(self._begin_next, partition, job)
            )
        except LeaseLost:
            self._holdings.lose(partition.id)
            return
        if not job.taken:  # another one may have been taken in its place
            partition.uncertain = True
            self._change()
        self._go_on(partition, job, delay)

    def _begin_next(self, partition: Partition, job: Job) -> None:
        """Have the next of a key begun in the round trip that settles the one before it."""
        following = partition.next_begins(job)
        if following:
            self._start_lane(partition, following)

    def _go_on(self, partition: Partition, job: Job, delay: float | None) -> None:
        """Let those of a key go on behind one that is done, or that has to wait."""
        following = None
        if delay is None:
            following = partition.finish(job)
        elif not partition.closing:
            following = partition.rest(
                job,
                delay,
                keeps_order=self._attempts.keeps_order(job),
                wake=partial(self._start_lane, partition),
            )
            self._park(partition, job)
        if following and following.turn:
            following.turn.set()
            following.turn = None
        elif following and not partition.closing:
            self._start_lane(partition, following)

    def _make_room(self, partition: Partition) -> None:
        """Read again of a partition that was full, once half of what it may hold is gone."""
        if partition.full and len(partition.tasks) <= self._prefetch // 2:
            partition.full = False
            self._change()

    def _lane_ended(self, partition: Partition, task: asyncio.Task[None]) -> None:
        partition.tasks.pop(task, None)
        self._make_room(partition)
        if partition.closing and partition.idle:
            self._nudge.set()


def _streams_of(handlers: Handlers, policy: Policy) -> Sequence[str]:
    streams = (policy.commands.streams_of(handler.type) for handler in handlers)
    return list(dict.fromkeys(name for names in streams for name in names))
