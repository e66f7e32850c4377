"""Two serving processes behind one address are replaced one after the other, under load."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from gateway.client import Notice, Subscribed, subscribe
from tests.e2e.gateways import PATIENCE, Gateway, Site, site
from tests.proxy import Proxy
from tests.servers import RunningServer, eventually

CONFIG = """
[broker]
url = "{url}"
namespace = "{namespace}"
[server]
port = 0
goodbye_window = "500ms"
[worker]
handlers = ["mine"]
[[commands]]
path = "/count"
type = "count"
stream = "counts"
key = "'one'"
[[channels]]
pattern = "counts"
history = {{ size = 100000, ttl = "1h" }}
[[feeds]]
type = "counted"
channels = ["'counts'"]
"""

HANDLERS = """
from gateway import Event, handles


@handles("count")
async def count(command):
    return Event("counted", data=command.data)
"""

BETWEEN = 100
"""Commands that are carried out before each step of the replacement."""
LAST = -1
"""The number that ends it all."""


class Address(Proxy):
    """One address for several servers, as of a load balancer: whoever takes the connection."""

    def __init__(self) -> None:
        super().__init__(0)
        self.targets: list[int] = []
        self._turn = 0

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        self._turn += 1
        turn = self._turn % len(self.targets)
        for target in [*self.targets[turn:], *self.targets[:turn]]:
            self.target = target
            try:
                return await super()._connect()
            except OSError:
                continue
        raise ConnectionRefusedError


class Poster:
    """Sends one command after the other, each until it is accepted."""

    def __init__(self, url: str) -> None:
        self.sent = 0
        self.stop = False
        self._http = httpx.AsyncClient(base_url=url, timeout=PATIENCE, trust_env=False)

    async def run(self) -> None:
        async with self._http:
            while not self.stop:
                self.sent += 1
                await self._send(self.sent)
            await self._send(LAST)

    async def _send(self, number: int) -> None:
        while True:
            try:
                answer = await self._http.post(
                    "/count", json={"n": number}, headers={"Idempotency-Key": f"n{number}"}
                )
            except httpx.TransportError:  # between two processes: sent again, it is the same
                continue
            assert answer.status_code in (202, 503), answer.text
            if answer.status_code == 202:
                return


class Listener:
    """Follows the channel over all reconnections."""

    def __init__(self, url: str, *, sse: bool) -> None:
        self._url = url
        self._sse = sse
        self.heard: list[int] = []
        self.subscriptions = 0
        self.gaps = 0

    async def run(self) -> None:
        events = subscribe(
            self._url, ["counts"], after="earliest", sse=self._sse, notice=self._noticed
        )
        async for event in events:
            if event.data["n"] == LAST:
                break
            self.heard.append(event.data["n"])
        await events.aclose()

    def _noticed(self, notice: Notice) -> None:
        if isinstance(notice, Subscribed):
            self.subscriptions += 1
            self.gaps += not notice.recovered


@pytest.fixture
async def shop(valkey: RunningServer, tmp_path: Path) -> AsyncIterator[Site]:
    """A site with a log server of its own, which stays."""
    config = CONFIG.format(url=valkey.url, namespace=os.urandom(4).hex())
    (tmp_path / "gateway.toml").write_text(config)
    (tmp_path / "mine.py").write_text(HANDLERS)
    async with site(tmp_path) as made:
        yield made


async def test_a_rolling_restart_loses_and_repeats_nothing(shop: Site) -> None:
    config = shop.folder / "gateway.toml"
    await shop.start("work", str(config))
    serving: list[Gateway] = [await shop.start("serve", str(config)) for _ in range(2)]
    address = Address()
    address.targets = [each.port for each in serving]
    await address.open()
    poster = Poster(address.url)
    listeners = [Listener(address.url, sse=number % 2 == 0) for number in range(8)]
    async with asyncio.TaskGroup() as tasks:
        for listener in listeners:
            tasks.create_task(listener.run())
        tasks.create_task(poster.run())
        for index in range(2):
            await _progress(poster, listeners)
            await serving[index].stop()
            serving[index] = await shop.start("serve", str(config))
            address.targets = [each.port for each in serving]
        await _progress(poster, listeners)
        poster.stop = True
    await address.refuse()
    expected = list(range(1, poster.sent + 1))
    for listener in listeners:
        assert listener.heard == expected
        assert listener.gaps == 0
    assert sum(listener.subscriptions for listener in listeners) >= 2 * len(listeners)


async def _progress(poster: Poster, listeners: list[Listener]) -> None:
    """Wait until everybody has heard a good deal more."""
    goal = poster.sent + BETWEEN
    await eventually(
        lambda: all(len(listener.heard) >= goal for listener in listeners),
        within=PATIENCE,
        reason=f"everybody heard {goal} events",
    )
