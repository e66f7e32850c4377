"""What is there after the end of everything: of a gateway that was stopped, or killed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import httpx
import pytest
from playwright.async_api import Page, expect

from gateway.client import Notice, Positions, Subscribed, subscribe
from tests.e2e.gateways import Site, copy_example
from tests.e2e.pages import open_page
from tests.servers import eventually

SHORT_LEASE = {"[worker]": '[worker]\nlease = "1s"'}
"""What a dead worker held is free again after a second, so that the tests need not wait longer."""


@pytest.fixture
async def shop(empty_site: Site) -> Site:
    copy_example(empty_site.folder, SHORT_LEASE)
    await start(empty_site)
    return empty_site


async def start(shop: Site) -> None:
    await shop.start("run", "shop", "--port", "0", "--workers", "2")


@asynccontextmanager
async def orders_coming_in(shop: Site) -> AsyncIterator[list[str]]:
    """Place one order after the other, and keep the ids of those that were accepted."""
    accepted: list[str] = []

    async def customer(name: str) -> None:
        while True:
            try:
                accepted.append(await shop.place(name))
            except httpx.TransportError:
                return  # nobody is there any more

    customers = [asyncio.create_task(customer(f"c-{number}")) for number in range(8)]
    try:
        yield accepted
    finally:
        for each in customers:
            each.cancel()
        await asyncio.wait(customers)


async def read(
    shop: Site, after: str, count: int, *, sse: bool
) -> tuple[list[str], list[Notice], str]:
    """Follow `orders` from a position for `count` events.

    Returns the ids of the events, what was said of the subscription, and the position then.
    """
    positions = Positions(["orders"], after)
    notices: list[Notice] = []
    ids: list[str] = []
    events = subscribe(str(shop.http.base_url), positions, sse=sse, notice=notices.append)
    async with aclosing(events), asyncio.timeout(30):
        async for event in events:
            ids.append(event.event["id"])
            if len(ids) == count:
                break
    return ids, notices, positions.known()["orders"]


@pytest.mark.parametrize("end", ["stopped", "killed"])
async def test_all_that_was_accepted_is_there_after_the_end(shop: Site, end: str) -> None:
    done = {order: await shop.succeeded(order) for order in [await shop.place() for _ in range(20)]}
    first_ten, _, position = await read(shop, "earliest", 10, sse=False)
    history = await shop.history("orders")

    async with orders_coming_in(shop) as accepted:
        await eventually(lambda: len(accepted) > 50, within=30, reason="orders were coming in")
        await (shop.gateway.stop() if end == "stopped" else shop.gateway.kill_everything())
    await start(shop)

    assert {order: await shop.status(order) for order in done} == done
    for order in accepted:
        await shop.succeeded(order)
    events = await shop.history("orders")
    ids, orders = ([event[name] for event in events] for name in ("id", "subject"))
    assert len(orders) == len(set(orders)), "an order is there twice"
    assert set(orders) >= {*done, *accepted}
    assert ids[: len(history)] == [event["id"] for event in history]
    assert ids[:10] == first_ten
    for sse in (False, True):
        rest, notices, _ = await read(shop, position, len(ids) - 10, sse=sse)
        assert rest == ids[10:]
        assert [each.recovered for each in notices if isinstance(each, Subscribed)] == [True]


@pytest.mark.browser
async def test_a_dashboard_goes_on_after_everything_was_killed(shop: Site, roaming: Page) -> None:
    await open_page(roaming, f"{shop.url}/demo/")
    for order in [await shop.place(f"c-{number}") for number in range(5)]:
        await shop.succeeded(order)
    total = roaming.get_by_test_id("total")
    await expect(total).to_have_attribute("data-total", "5")
    await shop.gateway.kill_everything()
    await start(shop)
    await shop.place("c-1")
    await expect(total).to_have_attribute("data-total", "6")
    await expect(roaming.get_by_test_id("duplicates")).to_have_attribute("data-duplicates", "0")
    await expect(roaming.get_by_test_id("recovered")).to_have_attribute("data-recovered", "true")
    for status, count in {"accepted": 6, "shipped": 0, "rejected": 0}.items():
        await expect(roaming.get_by_test_id(f"count-{status}")).to_have_text(str(count))
