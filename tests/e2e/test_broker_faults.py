"""What a user sees while the broker is in trouble, and after: one trouble at a time.

A gateway, a worker and a subscriber over each transport run through each of them. No process is
started anew, nobody has to do anything.
"""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import httpx
from redis.asyncio import Redis

from gateway.broker.embedded import server_arguments
from gateway.broker.process import ServerProcess
from tests.e2e.chaos.history import Delivered, Diary, Subscribed
from tests.e2e.chaos.subscribers import Raw, RawEventStream, RawWebSocket
from tests.e2e.gateways import PATIENCE, Gateway, Site
from tests.sentinels import replicated
from tests.servers import eventually, is_alive, valkey_binary

CONFIG = """
[broker]
url = "{url}"
patience = "500ms"
timeout = "1s"
[server]
heartbeat = "1s"
goodbye_window = "200ms"
[worker]
handlers = ["mine"]
lease = "1s"
[[commands]]
path = "/dig"
type = "dig"
stream = "holes"
[[channels]]
pattern = "holes"
history = {{ size = 1000, ttl = "1h" }}
[[feeds]]
type = "dug"
channels = ["'holes'"]
"""

HANDLERS = """
import asyncio

from gateway import Event, handles


@handles("dig", timeout=60, retries=20)
async def dig(command):
    await asyncio.sleep(command.data.get("seconds", 0))
    return Event("dug", subject=command.id)
"""

QUIET = 2.0
"""Seconds for which the processes are watched while the broker is away."""
MOST_CPU = 0.1
"""Of a core: what one process may use meanwhile."""
MOST_LINES = 12
"""Of the log: what both processes may say about one trouble."""


class Plant:
    """A gateway, a worker and two subscribers."""

    def __init__(self, site: Site, processes: list[Gateway], subscribers: list[Raw]) -> None:
        self.site = site
        self.processes = processes
        self.subscribers = subscribers

    @property
    def diaries(self) -> list[Diary]:
        return [each.diary for each in self.subscribers]

    async def dig(self, *, seconds: float = 0) -> httpx.Response:
        return await self.site.http.post("/dig", json={"seconds": seconds})

    async def accepted(self, count: int, *, seconds: float = 0) -> list[str]:
        """Have commands accepted, each of which takes so long, and return their ids.

        On a busy machine the broker may be late for one, which is then sent again.
        """
        ids: list[str] = []

        async def all_are() -> bool:
            answer = await self.dig(seconds=seconds)
            assert answer.status_code in (202, 503), answer.text
            if answer.status_code == 202:
                ids.append(answer.json()["id"])
            return len(ids) == count

        await eventually(all_are, within=PATIENCE, reason=f"{count} commands were accepted")
        return ids

    async def done(self, commands: list[str]) -> None:
        for command in commands:
            await self.site.succeeded(command)

    async def refuses(self) -> None:
        """Wait until commands are refused; then they are so at once, and say when to try again."""

        async def refused() -> bool:
            return (await self.dig()).status_code == 503

        await eventually(refused, within=PATIENCE, reason="commands were refused")
        seconds = []
        for _ in range(11):
            begin = time.monotonic()
            answer = await self.dig()
            seconds.append(time.monotonic() - begin)
            assert answer.status_code == 503
            assert answer.json()["code"] == "broker-unavailable"
            assert int(answer.headers["Retry-After"]) > 0
        assert sorted(seconds)[5] < 0.4  # they are not patient for `patience`, as the first was
        assert (await self.site.http.get("/readyz")).status_code == 503
        assert (await self.site.http.get("/healthz")).status_code == 200

    async def waits_quietly(self) -> None:
        """The processes do next to nothing while there is nothing that they could do."""
        before = [each.cpu() for each in self.processes]
        begin = time.monotonic()
        await asyncio.sleep(QUIET)
        elapsed = time.monotonic() - begin
        for process, used in zip(self.processes, before, strict=True):
            assert process.cpu() - used < MOST_CPU * elapsed

    async def recovers(self) -> None:
        """Wait until the gateway says that it is ready, and accepts commands."""

        async def ready() -> bool:
            if (await self.site.http.get("/readyz")).status_code == 503:
                return False
            return (await self.dig()).status_code == 202

        await eventually(ready, within=PATIENCE, reason="commands were accepted again")

    async def told(self) -> None:
        """Wait until each subscriber has all that its channel holds, each event once, in order.

        That is: since it was last told of a gap.
        """

        async def have_all() -> bool:
            holds = [event["id"] for event in await self.site.history("holes")]
            return all(_heard(diary) == holds for diary in self.diaries)

        await eventually(have_all, within=PATIENCE, reason="all were told of everything")

    async def breaks(self, count: int) -> None:
        """Wait until each subscriber was told so often that something is missing."""

        def told() -> bool:
            gaps = [sum(not each.recovered for each in _subscriptions(d)) for d in self.diaries]
            return gaps == [count, count]

        await eventually(told, within=PATIENCE, reason="all were told of the gap")

    def stands(self) -> str:
        """Return where the first subscriber stands: behind the last event that it was told."""
        return str(self.subscribers[0].stands_at("holes"))

    async def recoverable(self, position: str) -> bool:
        """Whether nothing is missing for who comes back with a position."""
        parameters = {"after": position}
        answer = await self.site.http.get("/channels/holes/history", params=parameters)
        return answer.headers["Gateway-Recovered"] == "true"

    def stayed(self) -> bool:
        """Whether no subscriber lost its connection or was told of a gap."""
        return all(
            diary.connections == 0 and all(note.recovered for note in _subscriptions(diary))
            for diary in self.diaries
        )

    def lines(self) -> list[str]:
        """Return what the processes have said on stderr."""
        return (self.site.folder / "stderr.log").read_text().splitlines()

    @contextmanager
    def in_good_order(self) -> Iterator[None]:
        """No process ends, and little is said."""
        before = len(self.lines())
        yield
        assert all(is_alive(each.pid) for each in self.processes)
        said = self.lines()[before:]
        assert len(said) <= MOST_LINES, "\n".join(said)
        assert "Traceback" not in "\n".join(said)


def _subscriptions(diary: Diary) -> list[Subscribed]:
    return [note for note in diary.notes if isinstance(note, Subscribed)]


def _heard(diary: Diary) -> list[str]:
    """Return the events that came since it was last told of a gap."""
    heard: list[str] = []
    for note in diary.notes:
        if isinstance(note, Delivered):
            heard.append(note.event)
        elif not note.recovered:
            heard = []
    return heard


@asynccontextmanager
async def plant(site: Site, url: str) -> AsyncIterator[Plant]:
    """Run it all; everybody is connected, and has seen an event."""
    (site.folder / "gateway.toml").write_text(CONFIG.format(url=url))
    (site.folder / "mine.py").write_text(HANDLERS)
    processes = [await site.start("serve", "--port", "0"), await site.start("work")]
    subscribers: list[Raw] = [
        RawWebSocket("websocket", site.url, ["holes"], from_start=False, restless=False),
        RawEventStream("event stream", site.url, ["holes"], from_start=False, restless=False),
    ]
    following = [asyncio.create_task(each.follow()) for each in subscribers]
    found = Plant(site, processes, subscribers)
    try:
        await eventually(
            lambda: all(map(_subscriptions, found.diaries)), within=PATIENCE, reason="all listened"
        )
        await found.done(await found.accepted(1))
        await found.told()
        yield found
    finally:
        for task in following:
            task.cancel()
        await asyncio.gather(*following, return_exceptions=True)


class Server:
    """A log server with a directory of its own, which can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "s"
        self._folder = folder
        self._lives = 0
        self.redis = Redis(unix_socket_path=str(self.socket))
        self.start()

    def start(self, *, empty: bool = False) -> None:
        """Start it on what it wrote before, or on nothing. It acknowledges what is on the disk."""
        self._lives += empty or not self._lives
        directory = self._folder / f"data-{self._lives}"
        directory.mkdir(exist_ok=True)
        arguments = server_arguments(directory, self.socket, fsync="always")
        self.process = ServerProcess(valkey_binary(), arguments, log=directory / "log")

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)

    async def answers(self) -> bool:
        with suppress(OSError):
            return bool(await self.redis.ping())
        return False


@asynccontextmanager
async def serving(site: Site) -> AsyncIterator[tuple[Server, Plant]]:
    """Run a server and the plant."""
    server = Server(site.folder)
    try:
        await eventually(server.answers, within=PATIENCE, reason="the server answered")
        async with plant(site, f"unix://{server.socket}") as running:
            yield server, running
    finally:
        await server.redis.aclose()
        server.process.kill()


async def test_a_broker_that_is_killed_and_comes_back(empty_site: Site) -> None:
    async with serving(empty_site) as (server, plant):
        with plant.in_good_order():
            commands = await plant.accepted(5, seconds=0.2)
            server.process.kill()
            await plant.refuses()
            await plant.waits_quietly()
            server.start()
            await plant.recovers()
            await plant.done([*commands, *await plant.accepted(5)])
            await plant.told()
        assert plant.stayed()


async def test_a_broker_that_stands_still_for_longer_than_anybody_waits(empty_site: Site) -> None:
    """Also a read that blocks gives up: it may take five seconds and the timeout."""
    async with serving(empty_site) as (server, plant):
        with plant.in_good_order():
            commands = await plant.accepted(5, seconds=0.2)
            server.signal(signal.SIGSTOP)
            await plant.refuses()
            await plant.waits_quietly()
            await eventually(
                lambda: any("the feed lost the broker" in line for line in plant.lines()),
                within=PATIENCE,
                reason="the feed gave up",
            )
            server.signal(signal.SIGCONT)
            await plant.recovers()
            await plant.done([*commands, *await plant.accepted(5)])
            await plant.told()
        assert plant.stayed()


async def test_a_broker_whose_memory_is_full(empty_site: Site) -> None:
    async with serving(empty_site) as (server, plant):
        with plant.in_good_order():
            commands = await plant.accepted(5, seconds=0.2)
            await server.redis.config_set("maxmemory", 1)
            await plant.refuses()
            await server.redis.config_set("maxmemory", 0)
            await plant.recovers()
            await plant.done([*commands, *await plant.accepted(5)])
            await plant.told()
        assert plant.stayed()


async def test_a_broker_that_loses_everything(empty_site: Site) -> None:
    async with serving(empty_site) as (server, plant):
        with plant.in_good_order():
            await plant.done(await plant.accepted(5))
            await plant.told()
            await server.redis.flushall()
            await plant.breaks(1)
            await plant.recovers()
            await plant.done(await plant.accepted(5))
            await plant.told()
        with plant.in_good_order():
            server.process.kill()
            await plant.refuses()
            server.start(empty=True)
            await plant.recovers()
            await plant.breaks(2)
            await plant.done(await plant.accepted(5))
            await plant.told()
        for diary in plant.diaries:
            assert [note.recovered for note in _subscriptions(diary)] == [True, False, False]


async def test_a_master_that_is_killed_and_replaced_by_its_replica(empty_site: Site) -> None:
    async with (
        replicated(valkey_binary(), sentinels=3) as servers,
        plant(empty_site, servers.url) as running,
    ):
        with running.in_good_order():
            await running.done(await running.accepted(5))
            await running.told()
            await servers.copied()
            servers.master.process.kill()
            await running.refuses()
            await running.recovers()
            await running.done(await running.accepted(5))
            await running.told()
        assert running.stayed()
        moved = [line for line in running.lines() if "the master 'mymaster' is now at" in line]
        assert len(moved) == 2  # said by each process, once


async def test_a_replica_that_lacks_the_last_events_of_the_master_that_it_replaces(
    empty_site: Site,
) -> None:
    async with (
        replicated(valkey_binary()) as servers,
        plant(empty_site, servers.url) as running,
    ):
        with running.in_good_order():
            await running.done(await running.accepted(5))
            await running.told()
            before = running.stands()
            await servers.copied()
            await servers.detach()
            await running.done(await running.accepted(5))
            await running.told()
            after, lost = running.stands(), set(_heard(running.diaries[0])[-5:])
            servers.master.process.kill()
            await running.recovers()
            await running.breaks(1)
            await running.done(await running.accepted(5))
            await running.told()
        for diary in running.diaries:
            assert [note.recovered for note in _subscriptions(diary)] == [True, False]
            assert not lost & set(_heard(diary))
        assert await running.recoverable(before)
        assert not await running.recoverable(after)
