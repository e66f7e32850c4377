"""One run: a whole gateway under load, what goes wrong with it, and what was seen of it."""

import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import msgspec

from tests.e2e.chaos.cables import Cable
from tests.e2e.chaos.checker import LONGEST_REST
from tests.e2e.chaos.history import History, Run, Sent
from tests.e2e.chaos.load import OverHTTP, OverWebSocket, Sender
from tests.e2e.chaos.logservers import EmbeddedLog, LogServer, OwnServer
from tests.e2e.chaos.processes import HERE, Program
from tests.e2e.chaos.schedule import Fault, Kind
from tests.e2e.chaos.setups import Drama, Log, Setup
from tests.e2e.chaos.subscribers import Subscriber, crowd
from tests.servers import (
    DISK,
    MEMORY,
    redis7_binary,
    redis8_binary,
    short_directory,
    valkey_binary,
)

CONFIG = HERE / "gateway.toml"
PARTITIONS = 8
"""As in the configuration."""
STREAM = "work"
KEYS = [f"k{number}" for number in range(20)]
OVER_WEBSOCKET = 6
"""Of the senders: as many send over a WebSocket."""
WATCHED = 3
"""Keys that have subscribers of their own."""
START_PATIENCE = 90.0
"""Seconds in which everything must be at work at first. On an idle machine it takes two."""
TRIES = 3
"""How often a status is asked for before the answer counts as none."""
SLOWNESS = 0.05
"""Seconds by which a slow cable delays what goes through it."""
WARNING = 0.3
"""Seconds after the log went away until processes should have noticed, and be idle."""
BINARIES = {Log.VALKEY: valkey_binary, Log.REDIS_7: redis7_binary, Log.REDIS_8: redis8_binary}


@dataclass
class Stage:
    """Everything that runs during a run."""

    setup: Setup
    log: LogServer
    network: Cable
    """What leads to whichever process serves."""
    servers: list[Program] = field(default_factory=list)
    workers: list[Program] = field(default_factory=list)
    wires: dict[str, Cable] = field(default_factory=dict)
    """What leads from each process to the log."""
    senders: list[Sender] = field(default_factory=list)
    subscribers: list[Subscriber] = field(default_factory=list)

    @property
    def programs(self) -> list[Program]:
        return [*self.servers, *self.workers]

    @property
    def ports(self) -> list[int]:
        """Where processes serve, or served until they were killed."""
        return [each.port for each in self.servers if each.port is not None]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.network.port}"


async def run(setup: Setup, say: Callable[[str], None]) -> History:
    """Do one run and return what was seen."""
    with short_directory(_place(setup)) as directory:
        async with _stage(setup, directory) as stage:
            return await _play(stage, directory, say)


def _place(setup: Setup) -> Path:
    """Return where the log shall be.

    A server that flushes every second holds writes back while its disk is at it, for up to two
    seconds, and has acknowledged them already. Killed at that moment it loses them, as it may. In
    memory there is no such moment.
    """
    everysec = setup.log is Log.EMBEDDED or setup.fsync == "everysec"
    return MEMORY if everysec and MEMORY.is_dir() else DISK


@asynccontextmanager
async def _stage(setup: Setup, directory: Path) -> AsyncIterator[Stage]:
    async with AsyncExitStack() as stack:
        log = await _log(setup, directory)
        stack.push_async_callback(log.close)
        stack.push_async_callback(log.end)
        stage = Stage(setup, log, await _laid(stack, lambda: stage.ports))
        for number in range(setup.servers):
            stage.servers.append(await _program(stack, stage, "serve", number, directory))
        for number in range(setup.workers):
            stage.workers.append(await _program(stack, stage, "work", number, directory))
        async with asyncio.timeout(START_PATIENCE):
            await asyncio.gather(*(program.ready.wait() for program in stage.programs))
        yield stage


async def _log(setup: Setup, directory: Path) -> LogServer:
    if setup.log is Log.EMBEDDED:
        return EmbeddedLog(directory)
    server = OwnServer(BINARIES[setup.log](), directory, fsync=setup.fsync)
    await server.start()
    return server


async def _laid(stack: AsyncExitStack, targets: Callable[[], Sequence[int]]) -> Cable:
    cable = Cable(targets)
    await cable.lay()
    stack.push_async_callback(cable.remove)
    return cable


async def _program(
    stack: AsyncExitStack, stage: Stage, command: str, number: int, directory: Path
) -> Program:
    name = f"{command} {number}"
    arguments = [command, str(CONFIG)]
    environment = {"CHAOS_RUNS": str(directory / "runs")}
    if isinstance(log := stage.log, OwnServer):
        wire = stage.wires[name] = await _laid(stack, lambda: [log.port])
        environment["GATEWAY_BROKER_URL"] = f"redis://127.0.0.1:{wire.port}"
    else:
        arguments += ["--data-dir", str(log.directory)]
    program = Program(
        name, arguments, log=directory / f"{command}-{number}.err", environment=environment
    )
    stack.push_async_callback(program.kill)
    program.start()
    return program


async def _play(stage: Stage, directory: Path, say: Callable[[str], None]) -> History:
    chance = random.Random(stage.setup.seed)
    stage.subscribers = crowd(stage.url, KEYS[:WATCHED])
    numbers = itertools.count(1)
    for number, key in enumerate(KEYS):
        kind = OverWebSocket if number < OVER_WEBSOCKET else OverHTTP
        stage.senders.append(kind(key, stage.url, numbers, random.Random(chance.random())))
    async with AsyncExitStack() as stack:
        following = [asyncio.create_task(each.follow()) for each in stage.subscribers]
        stack.push_async_callback(_cancelled, following)
        for sender in stage.senders:
            stack.push_async_callback(sender.close)
        sending = [asyncio.create_task(each.run()) for each in stage.senders]
        stack.push_async_callback(_cancelled, sending)
        await _suffer(stage, say)
        began = time.monotonic()
        for sender in stage.senders:
            sender.stop()
        at_rest = await _rest(stage, sending, following)
        rest = time.monotonic() - began if at_rest else float("inf")
        return await _history(stage, directory, rest)


async def _cancelled(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel tasks that never end by themselves, and raise what one of them failed with."""
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception):
            raise result


# What goes wrong


async def _suffer(stage: Stage, say: Callable[[str], None]) -> None:
    """Let everything go wrong that shall, and return when all is mended."""
    began = time.monotonic()

    async def suffer(fault: Fault) -> None:
        await asyncio.sleep(max(0.0, began + fault.at - time.monotonic()))
        say(str(fault))
        await _DEEDS[fault.kind](stage, fault)

    async with asyncio.TaskGroup() as tasks:
        for fault in stage.setup.faults:
            tasks.create_task(suffer(fault))
        tasks.create_task(_play_drama(stage, say))
        tasks.create_task(asyncio.sleep(stage.setup.seconds))


async def _play_drama(stage: Stage, say: Callable[[str], None]) -> None:
    middle = stage.setup.seconds / 3
    if stage.setup.drama is Drama.NONE:
        return
    assert isinstance(stage.log, OwnServer)
    await asyncio.sleep(middle)
    say(f"{middle:5.1f} s  the log is {stage.setup.drama}")
    if stage.setup.drama is Drama.EMPTIED:
        await _log_away(stage, stage.log.empty(middle))
    else:
        await stage.log.set_back(middle)


async def _log_away(stage: Stage, absence: Coroutine[Any, Any, None]) -> None:
    """Let the log be away, and see what the processes use of the processor meanwhile."""
    async with stage.log.suffering:
        away = asyncio.create_task(absence)
        await asyncio.sleep(WARNING)
        before = {program: program.used() for program in stage.programs}
        since = time.monotonic()
        await away
    seconds = time.monotonic() - since
    for program, at_first in before.items():
        at_last = program.used()
        if at_first and at_last and at_first[0] == at_last[0]:
            program.watch.idling.append((seconds, at_last[1] - at_first[1]))


async def _log_paused(stage: Stage, fault: Fault) -> None:
    await _log_away(stage, stage.log.pause(fault.seconds))


async def _log_killed(stage: Stage, fault: Fault) -> None:
    await _log_away(stage, stage.log.fail(fault.seconds))


async def _log_disk_full(stage: Stage, fault: Fault) -> None:
    assert isinstance(stage.log, OwnServer)
    await _log_away(stage, stage.log.fill_disk(fault.seconds))


async def _log_out_of_memory(stage: Stage, fault: Fault) -> None:
    assert isinstance(stage.log, OwnServer)
    await _log_away(stage, stage.log.fill_memory(fault.seconds))


def _victim(stage: Stage, fault: Fault) -> Program:
    return (stage.servers if fault.kind.victim == "server" else stage.workers)[fault.number]


async def _killed(stage: Stage, fault: Fault) -> None:
    victim = _victim(stage, fault)
    async with victim.suffering:
        await victim.kill()
        await asyncio.sleep(fault.seconds)
        victim.start()


async def _restarted(stage: Stage, fault: Fault) -> None:
    victim = _victim(stage, fault)
    async with victim.suffering:
        await victim.stop()
        await asyncio.sleep(fault.seconds)
        victim.start()


async def _paused(stage: Stage, fault: Fault) -> None:
    victim = _victim(stage, fault)
    async with victim.suffering:
        victim.pause()
        await asyncio.sleep(fault.seconds)
        victim.resume()


async def _cut(stage: Stage, fault: Fault) -> None:
    stage.wires[_victim(stage, fault).watch.name].cut()


async def _isolated(stage: Stage, fault: Fault) -> None:
    wire = stage.wires[_victim(stage, fault).watch.name]
    wire.block()
    await asyncio.sleep(fault.seconds)
    wire.unblock()


async def _network_cut(stage: Stage, fault: Fault) -> None:
    stage.network.cut()


async def _network_slow(stage: Stage, fault: Fault) -> None:
    await _slow([stage.network], fault.seconds)


async def _wires_slow(stage: Stage, fault: Fault) -> None:
    await _slow(list(stage.wires.values()), fault.seconds)


async def _slow(cables: Sequence[Cable], seconds: float) -> None:
    for cable in cables:
        cable.delay = SLOWNESS
    await asyncio.sleep(seconds)
    for cable in cables:
        cable.delay = 0.0


_DEEDS: dict[Kind, Callable[[Stage, Fault], Coroutine[Any, Any, None]]] = {
    Kind.LOG_PAUSED: _log_paused,
    Kind.LOG_KILLED: _log_killed,
    Kind.LOG_DISK_FULL: _log_disk_full,
    Kind.LOG_OUT_OF_MEMORY: _log_out_of_memory,
    Kind.SERVER_KILLED: _killed,
    Kind.SERVER_PAUSED: _paused,
    Kind.SERVER_RESTARTED: _restarted,
    Kind.SERVER_CUT: _cut,
    Kind.SERVER_ISOLATED: _isolated,
    Kind.WORKER_KILLED: _killed,
    Kind.WORKER_PAUSED: _paused,
    Kind.WORKER_RESTARTED: _restarted,
    Kind.WORKER_CUT: _cut,
    Kind.WORKER_ISOLATED: _isolated,
    Kind.NETWORK_CUT: _network_cut,
    Kind.NETWORK_SLOW: _network_slow,
    Kind.WIRES_SLOW: _wires_slow,
}


# Rest, and what was seen


async def _rest(
    stage: Stage, sending: Sequence[asyncio.Task[None]], following: Sequence[asyncio.Task[None]]
) -> bool:
    """Wait until every command is done and every subscriber has everything; False if that takes
    too long."""
    with suppress(TimeoutError):
        async with asyncio.timeout(LONGEST_REST + 1):
            await asyncio.gather(*(program.ready.wait() for program in stage.programs))
            await asyncio.gather(*sending)
            await stage.log.answers()
            await stage.log.done(STREAM, PARTITIONS)
            newest = {entry.channel: entry.id for entry in (await stage.log.life()).entries}
            for subscriber in stage.subscribers:
                for channel in subscriber.diary.channels:
                    while not _has(subscriber, channel, newest):
                        _raise_failures(following)
                        await asyncio.sleep(0.02)
            return True
    return False


def _has(subscriber: Subscriber, channel: str, newest: dict[str, Any]) -> bool:
    at = subscriber.stands_at(channel)
    return at is not None and (channel not in newest or at.id >= newest[channel])


def _raise_failures(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        if task.done():
            task.result()


async def _history(stage: Stage, directory: Path, rest: float) -> History:
    sent = [each for sender in stage.senders for each in sender.sent]
    own = stage.log if isinstance(stage.log, OwnServer) else None
    return History(
        sent=sent,
        runs=_runs(directory / "runs"),
        lives=[*(await own.former_lives() if own else []), await stage.log.life()],
        losses=own.losses if own else [],
        diaries=[each.diary for each in stage.subscribers],
        statuses=await _statuses(stage.url, sent),
        watches=[each.watch for each in stage.programs],
        rest=rest,
    )


def _runs(file: Path) -> list[Run]:
    lines = file.read_bytes().splitlines() if file.exists() else []
    return [msgspec.json.decode(line, type=Run) for line in lines]


async def _statuses(url: str, sent: Sequence[Sent]) -> dict[str, str]:
    """Ask for the status of every accepted command."""
    ids = [each.answers[-1].id for each in sent if each.answers]
    statuses: dict[str, str] = {}
    waiting = iter(ids)

    async def ask(http: httpx.AsyncClient) -> None:
        for id in waiting:
            statuses[id] = await _status(http, id)

    async with httpx.AsyncClient(base_url=url, timeout=30, trust_env=False) as http:
        await asyncio.gather(*(ask(http) for _ in range(8)))
    return statuses


async def _status(http: httpx.AsyncClient, id: str) -> str:
    """Ask for one status. A connection that ends just then, unused for long, is no answer."""
    for _ in range(TRIES):
        try:
            answer = await http.get(f"/commands/{id}")
        except httpx.TransportError as error:
            status = repr(error)
        else:
            return "unknown" if answer.status_code == 404 else str(answer.json()["status"])
    return status
