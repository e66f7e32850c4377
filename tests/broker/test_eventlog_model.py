"""Appending, trimming, losing and resuming, in any order, against a simple model of a log."""

import asyncio
import copy
import secrets
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from gateway.broker.broker import Broker
from gateway.broker.client import Clients
from gateway.broker.eventlog import EventLog, Page
from gateway.broker.keys import Keys
from gateway.channels import EARLIEST, EntryId, Position
from gateway.config import BrokerConfig
from gateway.events import Publication, Retention
from tests.servers import RunningServer

T = TypeVar("T")

HOUR = 3_600_000
"""Milliseconds."""
BRIEFLY = 30
"""Milliseconds for which the channel `fleeting` keeps its events."""
IDLE = 1
"""Milliseconds without an event after which the log ticks."""
RESTART = 0.003
"""Seconds: no server starts within a millisecond, in which ids could come again."""
EXTRA = 5
"""Milliseconds by which the server may be late, or early, with an expiry."""


class Channel(NamedTuple):
    """How much a channel keeps."""

    size: int
    ttl_ms: int


CHANNELS = {
    "long": Channel(1000, HOUR),
    "three": Channel(3, HOUR),
    "one": Channel(1, HOUR),
    "fleeting": Channel(1000, BRIEFLY),
    "none": Channel(0, 0),
}

channels = st.sampled_from(sorted(CHANNELS))


class Event(NamedTuple):
    """An event that was appended."""

    id: EntryId
    channel: str
    text: str


@dataclass
class Model:
    """A log: everything that was ever appended to it, and what of it is kept."""

    epoch: str = ""
    appended: list[Event] = field(default_factory=list)
    kept: dict[str, list[Event]] = field(default_factory=lambda: {name: [] for name in CHANNELS})

    def append(self, event: Event) -> None:
        self.appended.append(event)
        size, ttl_ms = CHANNELS[event.channel]
        kept = [*self.kept[event.channel], event] if size else []
        oldest = event.id.ms - ttl_ms
        self.kept[event.channel] = [each for each in kept[-size:] if each.id.ms >= oldest]

    @property
    def last(self) -> EntryId:
        return self.appended[-1].id if self.appended else EntryId(0, 0)

    def missing(self, channel: str, after: EntryId) -> bool:
        """Tell whether anything of a channel after a position is not kept any more."""
        wanted = [each for each in self.appended if each.channel == channel and each.id > after]
        return wanted != [each for each in self.kept[channel] if each.id > after]

    def knows(self, position: Position) -> bool:
        """Tell whether somebody can stand there: not in what another log held, or what was lost."""
        ids = {EntryId(0, 0), *(each.id for each in self.appended)}
        return position.epoch == self.epoch and position.id in ids

    def may_be_kept(self, channel: str, at: float) -> bool:
        """Tell whether what a channel kept may still be there at a time."""
        kept = self.kept[channel]
        return not kept or at * 1000 < kept[-1].id.ms + CHANNELS[channel].ttl_ms + EXTRA

    def may_be_gone(self, channel: str, at: float) -> bool:
        """Tell whether all that a channel kept may have expired at a time."""
        kept = self.kept[channel]
        return not kept or at * 1000 > kept[-1].id.ms + CHANNELS[channel].ttl_ms - EXTRA


class EventLogMachine(RuleBasedStateMachine):
    """A log on a real server, and the model beside it."""

    positions: Bundle[Position] = Bundle("positions")
    server: RunningServer

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.clients = Clients(self.server.url, timeout=10)
        namespace = f"model-{secrets.token_hex(4)}"
        config = BrokerConfig(url=self.server.url, namespace=namespace)
        self.log: EventLog = self.run(self._opened(config))
        self.keys = Keys(namespace)
        self.prefix = f"{{{namespace}}}:"
        self.model = Model()
        self.copies = 0
        self.copy: Model | None = None
        self.number = 0

    async def _opened(self, config: BrokerConfig) -> EventLog:
        return Broker(config, self.clients).events

    def teardown(self) -> None:
        self.run(self.clients.close())
        self.runner.close()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(coroutine)

    @initialize()
    def begin(self) -> None:
        """The log has an epoch from its first event on."""
        self._append("long")

    @rule(target=positions, names=st.lists(channels, min_size=1, max_size=6))
    def append(self, names: list[str]) -> Any:
        """Append events to some channels in one step: each of them is a place to stand at."""
        ids = self._append(*names)
        return multiple(*(Position(self.model.epoch, id) for id in ids))

    def _append(self, *names: str) -> list[EntryId]:
        events = []
        for name in names:
            self.number += 1
            events.append(Publication(name, str(self.number).encode(), *CHANNELS[name]))
        ids = [EntryId.parse(id) for id in self.run(self.log.append(events))]
        for id, event in zip(ids, events, strict=True):
            self.model.append(Event(id, event.channel, event.event.decode()))
        if not self.model.epoch:
            self.model.epoch = self._read("long", EARLIEST, count=1).epoch
        assert ids == sorted(set(ids))
        return ids

    @rule(milliseconds=st.integers(1, 2 * BRIEFLY))
    def wait(self, milliseconds: int) -> None:
        time.sleep(milliseconds / 1000)

    @rule()
    def tick(self) -> None:
        """An idle log gets an entry for nobody."""
        time.sleep(2 * IDLE / 1000)
        self.run(self.log.tick(IDLE))
        ((newest, _),) = self.run(self._newest())
        self.model.append(Event(EntryId.parse(newest), "none", ""))

    async def _newest(self) -> Any:
        return await self.clients.commands.xrevrange(self.keys.events, count=1)

    @rule(channel=channels, count=st.integers(1, 5))
    def read_everything(self, channel: str, count: int) -> None:
        """Whoever asks for the earliest gets all that is kept, and nothing is missing there."""
        began = time.time()
        pages = self._read_on(channel, EARLIEST, count)
        assert pages[0].recovered
        self._check_texts(channel, pages, EntryId(0, 0), began)

    @rule(channel=channels, after=positions, count=st.integers(1, 5))
    def resume(self, channel: str, after: Position, count: int) -> None:
        """Who comes back gets all that follows, or is told of a gap and gets all that is kept."""
        began = time.time()
        pages = self._read_on(channel, after, count)
        first = pages[0]
        if first.recovered:
            assert self.model.knows(after)
            assert not self.model.missing(channel, after.id)
            assert first.after == after.id
            self._check_texts(channel, pages, after.id, began)
        else:
            assert self._is_excused(channel, after)
            self._check_texts(channel, pages, EntryId(0, 0), began)

    def _is_excused(self, channel: str, after: Position) -> bool:
        """Tell whether there is a reason to say that something is missing."""
        if not self.model.knows(after) or self.model.missing(channel, after.id):
            return True
        # What a channel without history, or one whose history has expired, had since is not known.
        old = time.time() * 1000 - after.id.ms >= CHANNELS[channel].ttl_ms - EXTRA
        return old and after.id != self.model.last

    @rule(target=positions, channel=channels, after=positions)
    def return_to_where_a_reading_began(self, channel: str, after: Position) -> Any:
        """Where a reading began is a place to come back to before the first event came."""
        first = self._read(channel, after, count=1)
        began = Position(first.epoch, first.after)
        if CHANNELS[channel].ttl_ms != HOUR:
            return multiple()
        again = self._read(channel, began, count=1)
        assert again.recovered
        assert again.entries == first.entries
        return multiple()

    def _read(self, channel: str, after: Position | str, *, count: int) -> Page:
        ttl_ms = CHANNELS[channel].ttl_ms
        return self.run(
            self.log.read_history(channel, after, retention=Retention(ttl_ms), count=count)
        )

    def _read_on(self, channel: str, after: Position | str, count: int) -> list[Page]:
        """Read page after page to the end."""
        pages = [self._read(channel, after, count=count)]
        while pages[-1].more and pages[-1].entries:
            here = EntryId.parse(pages[-1].entries[-1][0])
            pages.append(self._read(channel, Position(self.model.epoch, here), count=count))
        return pages

    def _check_texts(self, channel: str, pages: list[Page], after: EntryId, began: float) -> None:
        """Check what a reading gave that `began` at a time and ended just now."""
        got = [event.decode() for page in pages for _, event in page.entries]
        wanted = [each.text for each in self.model.kept[channel] if each.id > after]
        if got == wanted:
            assert not wanted or self.model.may_be_kept(channel, began)
        else:  # it expired before the reading, or in the midst of it
            assert got == wanted[: len(got)]
            assert self.model.may_be_gone(channel, time.time())

    # What happens to logs

    @rule()
    def back_up(self) -> None:
        """Copy the log, with everything that is kept."""
        self.copies += 1
        self.run(self._copy(self.prefix, self._backup))
        self.copy = copy.deepcopy(self.model)

    @precondition(lambda self: self.copy is not None)
    @rule()
    def set_back(self) -> None:
        """Put the copy in the place of the log: what came since is lost, and the log goes on."""
        assert self.copy is not None
        self.run(self._remove())
        self.run(self._copy(self._backup, self.prefix))
        self.model = copy.deepcopy(self.copy)
        time.sleep(RESTART)

    @rule()
    def empty(self) -> None:
        """The log is gone, and the next event begins another one."""
        self.run(self._remove())
        time.sleep(RESTART)
        self.model = Model()
        self._append("long")

    @property
    def _backup(self) -> str:
        return f"copy-{self.copies}-of-{self.prefix}"

    async def _copy(self, source: str, target: str) -> None:
        redis = self.clients.commands
        async for key in redis.scan_iter(f"{source}*", count=1000):
            await redis.copy(key, target + key.decode().removeprefix(source))

    async def _remove(self) -> None:
        redis = self.clients.commands
        keys = [key async for key in redis.scan_iter(f"{self.prefix}*", count=1000)]
        if keys:
            await redis.delete(*keys)


def test_the_log_behaves_as_its_model(valkey: RunningServer) -> None:
    class Machine(EventLogMachine):
        server = valkey

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=50,
            stateful_step_count=25,
            suppress_health_check=list(HealthCheck),
        ),
    )
