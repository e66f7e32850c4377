"""A log and subscribers without a server or a socket, for what only timing can show."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping

from gateway.broker.eventlog import Entry, Page
from gateway.channels import EARLIEST, EntryId, Position
from gateway.errors import BrokerUnavailable, CloseCode, GatewayError
from gateway.events import Retention
from gateway.hub.audience import Audience
from gateway.hub.hub import Hub
from gateway.hub.subscription import Encoding, Request, Standing
from gateway.principals import ANYBODY

EPOCH = "e"
TTL_MS = 1000


class Lines:
    """An encoding that can be read; counts how often it is asked."""

    def __init__(self, mark: str = "") -> None:
        self.mark = mark.encode()
        self.encoded: Counter[bytes] = Counter()

    def event(self, position: bytes, event: bytes) -> bytes:
        self.encoded[event] += 1
        return self.mark + event + b"@" + position.removeprefix(b"e-").removesuffix(b"-0") + b" "

    def heartbeat(self, position: bytes | None) -> bytes:
        return b"beat " if position is None else b"beat@%b " % position


LINES = Lines()


class Peer:
    """A subscriber that remembers what was written to it. Its `unsent` is up to the test."""

    def __init__(self, hub: Hub, encoding: Encoding = LINES) -> None:
        self.audiences: tuple[Audience, ...] = ()
        self.number = 0
        self.since = 0.0
        self.closed = False
        self.descriptor = -1
        self.caller = ANYBODY
        self.encoding = encoding
        self.hub = hub
        self.written: list[bytes] = []
        self.pending = 0
        self.reads = asyncio.Event()
        """Set while it takes what is written."""
        self.reads.set()
        self.goodbyes: list[CloseCode] = []
        hub.open(self)

    @property
    def heard(self) -> list[str]:
        """All that was written, in words."""
        return b"".join(self.written).decode().split()

    def write(self, data: bytes) -> None:
        if data:
            self.written.append(data)

    def unsent(self) -> int:
        return self.pending

    async def drained(self) -> None:
        await self.reads.wait()

    def beat(self, sign: bytes) -> None:
        self.write(sign)

    def goodbye(self, code: CloseCode, retry_ms: int) -> None:
        if not self.closed:
            self.goodbyes.append(code)
            self.leave()

    def leave(self) -> None:
        self.closed = True
        self.hub.close(self)

    def subscribe(self, *channels: str, after: int | str | None = None, id: str = "") -> None:
        """Ask for channels after the entry with this number of milliseconds."""

        def acknowledge(standings: Mapping[str, Standing]) -> bytes:
            answers = [
                f"{id}{name}:{each.position.split('-')[1]}{'' if each.recovered else '!'}"
                for name, each in standings.items()
            ]
            return " ".join(answers).encode() + b" "

        def refuse(error: GatewayError) -> None:
            self.write(f"{id}refused:{error.code} ".encode())

        position = Position(EPOCH, EntryId(after, 0)) if isinstance(after, int) else after
        self.hub.subscribe(self, Request(channels, position, acknowledge, refuse))


class Log:
    """Entries in memory, one a millisecond, that are read back when the test allows."""

    def __init__(self, *, page: int = 1000) -> None:
        """`page`: entries of one reading."""
        self.entries: list[Entry] = []
        self.floors: dict[str, EntryId] = {}
        self.epoch = EPOCH
        self.page = page
        self.readings: list[tuple[str, Position | str]] = []
        self.enough: list[int] = []
        """How many bytes each of them asked for."""
        self.allowed = asyncio.Event()
        """Set while readings are answered; they see the log as it is when they are begun."""
        self.allowed.set()
        self.away = False

    def append(self, *channels: str) -> list[Entry]:
        """Append an entry to each of these channels, and return them. Nobody is told."""
        entries = []
        for channel in channels:
            number = len(self.entries) + 1
            entry = Entry(b"%d-0" % number, channel.encode(), f"{channel}{number}".encode(), number)
            self.entries.append(entry)
            entries.append(entry)
        return entries

    def forget(self, count: int) -> None:
        """Lose the newest entries, as a server that was killed may."""
        del self.entries[-count:]

    def trim(self, channel: str, upto: int) -> None:
        """Retain nothing of a channel up to this entry."""
        self.floors[channel] = EntryId(upto, 0)

    async def read_history(
        self,
        channel: str,
        after: Position | str,
        *,
        retention: Retention,
        count: int,
        enough: int = 0,
        reach_ms: int | None = None,
    ) -> Page:
        self.readings.append((channel, after))
        self.enough.append(enough)
        if self.away:
            raise BrokerUnavailable("away")
        page = self._page(channel, after)
        await self.allowed.wait()
        return page

    def _page(self, channel: str, after: Position | str) -> Page:
        last = EntryId.parse(self.entries[-1].id) if self.entries else EntryId(0, 0)
        floor = self.floors.get(channel, EntryId(0, 0))
        start, recovered = floor, after == EARLIEST
        if isinstance(after, Position) and after.epoch == self.epoch and floor <= after.id <= last:
            start, recovered = after.id, True
        found = [
            (entry.id, entry.event)
            for entry in self.entries
            if entry.channel == channel.encode() and EntryId.parse(entry.id) > start
        ]
        more = len(found) > self.page
        return Page(self.epoch, last, start, recovered, found[: self.page], more)


def heard_by(entries: Iterable[Entry], *channels: str) -> list[str]:
    """What a `Peer` hears when these entries are written to it."""
    names = [channel.encode() for channel in channels]
    return [
        LINES.event(b"e-" + entry.id, entry.event).decode().strip()
        for entry in entries
        if entry.channel in names
    ]


async def turns(count: int = 20) -> None:
    """Let everything that can go on do so."""
    for _ in range(count):
        await asyncio.sleep(0)
