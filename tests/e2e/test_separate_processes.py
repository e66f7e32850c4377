"""`serve` and `work` as processes that share one data directory, and die one by one."""

from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from tests.e2e.gateways import PATIENCE, Site, copy_example
from tests.e2e.pages import open_page
from tests.servers import eventually

CONFIG = """
[worker]
handlers = ["mine"]
lease = "1s"
[[commands]]
path = "/dig"
type = "dig"
stream = "holes"
[[channels]]
pattern = "holes"
history = { size = 100, ttl = "1h" }
[[feeds]]
type = "dug"
channels = ["'holes'"]
"""

HANDLERS = """
import asyncio
import os
from pathlib import Path

from gateway import Event, Outcome, handles


@handles("dig", timeout=600)
async def dig(command):
    Path(f"attempt-{command.attempt}").write_text(str(os.getpid()))
    if command.attempt == 1:
        await asyncio.Event().wait()  # for ever
    return Outcome([Event("dug", subject=command.id)], result={"dug_by": os.getpid()})
"""


async def test_a_worker_that_is_killed_while_it_handles_is_replaced_by_another(
    empty_site: Site,
) -> None:
    site = empty_site
    (site.folder / "gateway.toml").write_text(CONFIG)
    (site.folder / "mine.py").write_text(HANDLERS)
    await site.start("serve", "--port", "0")
    workers = [await site.start("work") for _ in range(2)]
    answer = await site.http.post("/dig", json={})
    command = answer.json()["id"]

    begun = site.folder / "attempt-1"
    pid = int(await eventually(lambda: text(begun), within=PATIENCE, reason="the handler ran"))
    (victim,) = (worker for worker in workers if worker.pid == pid)
    (other,) = (worker for worker in workers if worker.pid != pid)
    assert (await site.status(command))["status"] == "started"
    assert await site.history("holes") == []
    await victim.kill()

    status = await site.succeeded(command)
    assert status["result"] == {"dug_by": other.pid}
    assert status["attempts"] == 2
    assert [event["subject"] for event in await site.history("holes")] == [command]
    life = [event["data"]["status"] for event in await site.history(f"commands:{command}")]
    assert life == ["accepted", "started", "started", "succeeded"]


def text(file: Path) -> str:
    return file.read_text() if file.exists() else ""


@pytest.mark.browser
async def test_connections_stay_when_the_process_that_owns_the_log_server_is_killed(
    empty_site: Site, roaming: Page
) -> None:
    shop = empty_site
    copy_example(shop.folder, {"[worker]": '[worker]\nlease = "1s"'})
    owner = await shop.start("work", "shop")
    await shop.start("serve", "shop", "--port", "0")
    first = log_server(shop)
    assert first in owner.descendants()
    await open_page(roaming, f"{shop.url}/demo/")
    for placed in [await shop.place() for _ in range(3)]:
        await shop.succeeded(placed)
    total = roaming.get_by_test_id("total")
    await expect(total).to_have_attribute("data-total", "3")

    await owner.kill()
    await shop.start("work", "shop")
    assert log_server(shop) != first

    order = {"customer": "c-1", "sku": "tea-250", "qty": 1}

    async def accepted() -> bool:
        answer = await shop.http.post("/orders", json=order)
        assert answer.status_code in (202, 503), answer.text
        return answer.status_code == 202

    await eventually(accepted, within=PATIENCE, reason="orders were accepted again")
    await expect(total).to_have_attribute("data-total", "4")
    await expect(roaming.get_by_test_id("state")).to_have_attribute("data-state", "open")
    await expect(roaming.get_by_test_id("connections")).to_have_text("1")


def log_server(shop: Site) -> int:
    """Return the id of the process that is the embedded server."""
    return int((shop.folder / "shop" / ".gateway" / "server.pid").read_text())
