"""Limits and quotas over several serving processes, as they run in production."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.broker.client import connect
from gateway.broker.keys import Keys
from gateway.config import BrokerConfig
from tests.processes import PATIENCE, Running, configure, running
from tests.servers import Broker, eventually, lasting

RATE, BURST = 100, 100
SECONDS = 6
CLIENTS = 4
"""Of each process. Together they ask many times more often than they may."""

LIMIT = f"""
[[limits]]
name = "all"
per = "everything"
rate = "{RATE}/s"
burst = {BURST}
"""


class Client:
    """Posts commands over one connection, one after the other."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.answers: Counter[int] = Counter()

    async def run(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        request = (
            b"POST /place HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            b"content-length: 2\r\n\r\n{}"
        )
        try:
            while True:
                writer.write(request)
                head = await reader.readuntil(b"\r\n\r\n")
                length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
                await reader.readexactly(int(length))
                self.answers[int(head.split()[1])] += 1
        finally:
            writer.close()


async def moments(broker: Broker) -> list[int]:
    """Return when each command was appended, in milliseconds by the clock of the log."""
    keys = Keys(broker.config.namespace)
    found = []
    for partition in range(broker.config.partitions):
        entries: Any = await broker.clients.commands.xrange(keys.commands("work", partition))
        found += [int(id.partition(b"-")[0]) for id, _ in entries]
    return sorted(found)


@asynccontextmanager
async def several(folder: Path, count: int) -> AsyncIterator[list[Running]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(running(folder, "serve")) for _ in range(count)]


async def test_two_processes_hold_a_limit_together_within_two_percent(
    broker: Broker, tmp_path: Path
) -> None:
    configure(tmp_path, broker, LIMIT)
    async with several(tmp_path, 2) as gateways:
        clients = [Client(gateway.port) for gateway in gateways for _ in range(CLIENTS)]
        tasks = [asyncio.create_task(client.run()) for client in clients]

        async def long_enough() -> bool:
            found = await moments(broker)
            return bool(found) and found[-1] - found[0] > SECONDS * 1000

        try:
            await eventually(long_enough, within=PATIENCE, reason="it took so long by the log")
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
    found = await moments(broker)
    seconds = (found[-1] - found[0]) / 1000
    rate = (len(found) - BURST) / seconds
    assert abs(rate / RATE - 1) <= 0.02, f"{rate:.1f}/s in {seconds:.1f} s"
    answers = sum((client.answers for client in clients), Counter())
    assert set(answers) == {202, 429}
    assert answers[429] > answers[202], "the clients did not ask more often than they may"
    for gateway in (clients[:CLIENTS], clients[CLIENTS:]):  # one did not shut the other out
        assert sum(client.answers[202] for client in gateway) > BURST


@pytest.fixture
def log(short_dir: Path, broker: Broker) -> Broker:
    """A log of its own, which the test may kill."""
    config = BrokerConfig(url=f"unix://{short_dir / 's'}", namespace="rates")
    return Broker(config=config, clients=broker.clients, server=broker.server)


async def answers(http: httpx.AsyncClient, count: int) -> Counter[tuple[int, str]]:
    """Post one command after the other; count statuses and codes."""
    found: Counter[tuple[int, str]] = Counter()
    for _ in range(count):
        answer = await http.post("/place", json={})
        found[answer.status_code, answer.json().get("code", "")] += 1
    return found


ACCEPTED, REFUSED, AWAY = (202, ""), (429, "rate-limited"), (503, "broker-unavailable")


async def test_while_the_log_is_away_each_process_goes_on_with_its_share(
    log: Broker, short_dir: Path, tmp_path: Path
) -> None:
    few = LIMIT.replace(f"{RATE}/s", "1/d").replace(f"burst = {BURST}", "burst = 8")
    configure(tmp_path, log, few)

    with lasting(short_dir) as server:
        await answering(log)
        async with several(tmp_path, 2) as (one, other):
            await aware(one)
            await aware(other)
            assert await answers(one.http, 5) == {ACCEPTED: 5}
            assert await answers(other.http, 3) == {ACCEPTED: 3}
            server.kill()
            for gateway in (one, other):
                assert await answers(gateway.http, 6) == {AWAY: 4, REFUSED: 2}
            with lasting(short_dir):
                for gateway in (one, other):
                    await ready(gateway)
                    assert await answers(gateway.http, 2) == {REFUSED: 2}


async def answering(log: Broker) -> None:
    async def answers() -> bool:
        try:
            await (await connect(log.config)).close()
        except Exception:  # noqa: BLE001  whatever it is, it does not answer yet
            return False
        return True

    await eventually(answers, within=PATIENCE, reason="the log answered")


async def aware(gateway: Running) -> None:
    """Wait until a process knows that there are two."""

    async def knows() -> bool:
        return "gateway_processes 2.0" in (await gateway.http.get("/metrics")).text

    await eventually(knows, within=PATIENCE, reason="the processes knew of each other")


async def ready(gateway: Running) -> None:
    async def is_ready() -> bool:
        return (await gateway.http.get("/readyz")).status_code == 200

    await eventually(is_ready, within=PATIENCE, reason="requests reached the log again")


QUOTA = """
[quotas]
connections_per_ip = 3
"""


@asynccontextmanager
async def subscribed(gateway: Running) -> AsyncIterator[httpx.Response]:
    async with (
        httpx.AsyncClient(timeout=PATIENCE) as http,
        http.stream("GET", f"http://127.0.0.1:{gateway.port}/sse?channel=log") as answer,
    ):
        yield answer


async def refusal(gateway: Running) -> str:
    """Return the code with which one more connection is refused; empty if it is not."""
    async with subscribed(gateway) as answer:
        if answer.status_code == 200:
            return ""
        return str(json.loads(await answer.aread())["code"])


async def test_connections_of_a_process_that_was_killed_no_longer_count(
    broker: Broker, tmp_path: Path
) -> None:
    configure(tmp_path, broker, QUOTA)
    async with several(tmp_path, 2) as (one, other), AsyncExitStack() as held:
        for gateway in (one, one, other):
            answer = await held.enter_async_context(subscribed(gateway))
            assert answer.status_code == 200
        for gateway in (one, other):
            assert await refusal(gateway) == "quota-exceeded"
        one.process.kill()
        await one.process.wait()

        async def has_room() -> bool:
            return not await refusal(other)

        await eventually(has_room, within=PATIENCE, reason="its connections no longer counted")
        assert (await held.enter_async_context(subscribed(other))).status_code == 200
        assert (await held.enter_async_context(subscribed(other))).status_code == 200
        assert await refusal(other) == "quota-exceeded"
