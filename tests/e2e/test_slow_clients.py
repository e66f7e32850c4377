"""Hundreds of clients that are slow on purpose, and one beside them that is not."""

import asyncio
import json
import re
import shutil
import time
from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from tests.e2e.gateways import PATIENCE, Site, site
from tests.servers import short_directory

CONFIG = """
[server]
demo = true
[events]
anonymous = true
[[commands]]
path = "/orders"
type = "order.place"
stream = "orders"
[[channels]]
pattern = "orders"
history = { size = 1000, ttl = "1h" }
"""
SECONDS = 12
"""How long they go on."""
CONNECTIONS = 200
"""Of each kind."""
ATTACKS = {
    "slow headers": ["-H", "-i", "1", "-u", "/healthz"],
    "slow body": ["-B", "-i", "1", "-s", "8192", "-f", "application/json", "-u", "/orders"],
    "slow read": [
        *("-X", "-k", "3", "-n", "1", "-w", "10", "-y", "20", "-z", "5"),
        *("-u", "/static/vendor/uplot/uPlot.esm.js"),
    ],
}


@pytest.fixture
async def server() -> AsyncIterator[Site]:
    with short_directory() as folder:
        (folder / "gateway.toml").write_text(CONFIG)
        async with site(folder) as server:
            await server.start("serve", "--port", "0")
            yield server


async def attack(binary: str, url: str, arguments: list[str]) -> str:
    """Be slow for a while; return what the tool says about the server at the end."""
    *options, path = arguments
    process = await asyncio.create_subprocess_exec(
        *(binary, *options, url + path, "-c", str(CONNECTIONS), "-r", str(CONNECTIONS)),
        *("-l", str(SECONDS), "-p", "3"),
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await asyncio.wait_for(process.communicate(), PATIENCE + SECONDS)
    return re.sub(r"\x1b\[[0-9;]*m", "", said.decode())


async def work(server: Site, until: asyncio.Event) -> list[float]:
    """Publish and hear it, again and again; return how long each took, in seconds."""
    took = []
    url = f"ws://127.0.0.1:{server.gateway.port}/ws?channel=orders"
    async with connect(url, proxy=None) as socket:
        for number in count():
            begun = time.monotonic()
            await server.publish(("orders", number))
            async with asyncio.timeout(PATIENCE):
                while "event" not in (said := json.loads(await socket.recv())):
                    pass
            assert said["event"]["data"] == number
            took.append(time.monotonic() - begun)
            if until.is_set():
                return took
    raise AssertionError


async def test_who_works_beside_slow_clients_does_not_notice_them(server: Site) -> None:
    binary = shutil.which("slowhttptest")
    if binary is None:
        pytest.skip("needs slow clients: apt-get install slowhttptest")
    url = f"http://127.0.0.1:{server.gateway.port}"
    over = asyncio.Event()
    working = asyncio.create_task(work(server, over))
    said = await asyncio.gather(*(attack(binary, url, each) for each in ATTACKS.values()))
    over.set()
    took = sorted(await working)
    for name, report in zip(ATTACKS, said, strict=True):
        assert re.search(r"service available:\s+YES", report), f"{name}: {report[-2000:]}"
    assert len(took) > 100
    assert took[len(took) * 99 // 100] < 1, took[-20:]
    assert told(server.folder) == ""


def told(folder: Path) -> str:
    """Return what stands in the gateway's log."""
    return (folder / "stderr.log").read_text()
