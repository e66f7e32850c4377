"""The broker goes away, loses its answers or its data: the worker waits and goes on by itself."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from gateway import Command, Event, handles
from gateway.broker.client import Clients, translated
from gateway.commands import Status
from gateway.config import BrokerConfig
from gateway.errors import BrokerUnavailable, StartError
from gateway.settings import Seconds
from tests.servers import Broker, eventually, lasting
from tests.worker.stage import LEASE, TYPE, Stage, check_log, config_of

pytestmark = [pytest.mark.anyio]


@handles(TYPE)
async def handle(command: Command[list[Any]]) -> Event:
    key, number = command.data
    await asyncio.sleep(0.005)
    return Event("done", data={"key": key, "number": number})


@asynccontextmanager
async def staged(config: BrokerConfig, **worker: Any) -> AsyncIterator[Stage]:
    """Give a stage on a server that need not be there yet."""
    clients = Clients(str(config.url), timeout=5)
    try:
        yield Stage(config_of(config, **worker), clients)
    finally:
        await clients.close()


async def answering(stage: Stage) -> None:
    async def answered() -> bool:
        with suppress(BrokerUnavailable), translated():
            asked: Any = stage.redis.ping()
            return bool(await asked)
        return False

    await eventually(answered, within=30, reason="the server answered")


async def post(stage: Stage, numbers: range, *, keys: int) -> dict[str, tuple[str, int]]:
    posted = {}
    for number in numbers:
        for key in (f"k{n}" for n in range(keys)):
            posted[await stage.post([key, number], key=key)] = (key, number)
    return posted


async def test_a_server_that_is_killed_and_comes_back_costs_nothing(
    short_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with staged(BrokerConfig(url=f"unix://{short_dir / 's'}")) as stage:
        running = asyncio.create_task((worker := stage.worker(handle)).run())
        with lasting(short_dir):
            await answering(stage)
            posted = await post(stage, range(20), keys=40)
            await eventually(
                lambda: partly_done(stage, len(posted)), within=30, reason="half of it was done"
            )
        await asyncio.sleep(LEASE / 2)  # a while without any server
        with lasting(short_dir):
            await answering(stage)
            posted |= await post(stage, range(20, 22), keys=40)
            await stage.drained()
            check_log(await stage.log(), posted)
            await eventually(
                lambda: told(caplog)[-1] == "the broker is back", within=30, reason="that was told"
            )
            worker.stop()
            await running
    waits = [message for message in told(caplog) if message.startswith("waiting for the broker: ")]
    assert 2 <= len(waits) <= 4  # once each time it is away, or twice; not once for each failure


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if "the broker" in record.message]


async def partly_done(stage: Stage, posted: int) -> bool:
    return await stage.backlog() < posted / 2


async def test_a_worker_may_start_before_its_broker_and_stop_without_it(
    short_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with staged(BrokerConfig(url=f"unix://{short_dir / 's'}")) as stage:
        running = asyncio.create_task((worker := stage.worker(handle)).run())
        await eventually(lambda: told(caplog), within=30, reason="it missed the broker")
        with lasting(short_dir):
            await answering(stage)
            id = await stage.post(["k", 1], key="k")
            assert (await stage.outcome(id, within=30)).status is Status.SUCCEEDED
        worker.stop()
        await asyncio.wait_for(running, 30)


async def test_a_log_that_is_emptied_is_made_anew(stage: Stage) -> None:
    async with stage.working(handle):
        await stage.outcome(await stage.post(["k", 1], key="k"))
        await stage.redis.flushall()
        ids = [await stage.post([f"k{n}", 1], key=f"k{n}") for n in range(40)]
        for id in ids:
            assert (await stage.outcome(id, within=30)).status is Status.SUCCEEDED


async def test_answers_that_are_lost_change_nothing(stage: Stage, broker: Broker) -> None:
    chance = random.Random(3)
    posted = await post(stage, range(30), keys=40)
    async with lossy(broker.server.socket, chance) as (url, cut):
        config = BrokerConfig(url=url, namespace=broker.config.namespace)
        async with staged(config, lease=Seconds(20), concurrency=8) as distant:
            running = asyncio.create_task((worker := distant.worker(handle)).run())
            await stage.drained(within=60)
            check_log(await stage.log(), posted)
            worker.stop()
            await running
        assert len(cut) > 5
    for id in posted:
        status = await stage.status(id)
        assert status is not None
        assert (status.status, status.attempts) == (Status.SUCCEEDED, 1)
        assert await stage.life(id) == ["accepted", "started", "succeeded"]


@asynccontextmanager
async def lossy(socket: Path, chance: random.Random) -> AsyncIterator[tuple[str, list[int]]]:
    """Forward to a server, but now and then break off where its answer should come.

    What was asked has been done by then. Gives a URL, and what was cut so far.
    """
    cut: list[int] = []
    tasks: set[asyncio.Task[Any]] = set()
    writers: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        to_client, to_server = await asyncio.open_unix_connection(str(socket))
        writers.update((writer, to_server))
        asking = asyncio.create_task(pump(reader, to_server))
        with suppress(ConnectionError):
            while answer := await to_client.read(65536):
                if len(answer) > 100 and chance.random() < 0.2:
                    cut.append(len(answer))
                    break
                writer.write(answer)
        writer.close()
        to_server.close()
        await asking

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while asked := await reader.read(65536):
                writer.write(asked)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}", cut
    finally:
        server.close()
        for writer in writers:
            writer.close()
        await asyncio.gather(*tasks)
        await server.wait_closed()


async def test_another_number_of_partitions_is_refused(stage: Stage, broker: Broker) -> None:
    await stage.broker.commands.open(["work"])
    other = BrokerConfig(url=broker.config.url, namespace=broker.config.namespace, partitions=4)
    worker = Stage(config_of(other), broker.clients).worker(handle)
    with pytest.raises(StartError, match="expected 16 partitions"):
        await asyncio.wait_for(worker.run(), 30)


async def test_an_idle_worker_asks_the_broker_little(stage: Stage, broker: Broker) -> None:
    async def calls() -> int:
        redis: Redis = broker.clients.commands
        info: Any = await redis.info("commandstats")
        return sum(info[f"cmdstat_{name}"]["calls"] for name in ("evalsha", "xread"))

    async def quiet() -> bool:
        before = await calls()
        await asyncio.sleep(2)
        # The roll and the leases, which are short here, twice a second; a read now and then.
        return await calls() - before < 15

    async with stage.working(handle):
        await stage.held(1)
        await eventually(quiet, within=30, reason="an idle worker asked less")
