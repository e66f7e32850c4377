"""Dashboards whose network goes away, and what they show when it is back."""

import asyncio

import pytest
from playwright.async_api import Page, expect

from tests.e2e.gateways import PATIENCE, Site, copy_example
from tests.e2e.pages import cards, open_page
from tests.servers import eventually

pytestmark = [pytest.mark.browser]


async def shows(page: Page, *, events: int) -> None:
    """Wait until the page has taken in so many events; of which none came twice."""
    await expect(page.get_by_test_id("total")).to_have_attribute("data-total", str(events))
    await expect(page.get_by_test_id("duplicates")).to_have_attribute("data-duplicates", "0")


async def board_is_the_log(page: Page, shop: Site) -> None:
    """Wait until the board shows what the channel retains: each order once, the newest first."""
    newest_first = [event["data"]["order"] for event in await shop.history("orders")][::-1]

    async def same() -> bool:
        return await cards(page) == newest_first

    await eventually(same, within=PATIENCE, reason="the board showed each order once, in order")


@pytest.mark.parametrize("transport", ["websocket", "sse"])
async def test_orders_placed_during_five_seconds_without_network_all_show_once(
    shop: Site, roaming: Page, transport: str
) -> None:
    await open_page(roaming, f"{shop.url}/demo/", transport)
    orders = [await shop.place(f"c-{number}") for number in range(5)]
    await shows(roaming, events=5)

    await shop.cable.refuse()
    clock = asyncio.get_running_loop().time
    begin = clock()
    for number in range(200):
        orders.append(await shop.place(f"c-{number % 60}"))
        await asyncio.sleep(begin + 5 * (number + 1) / 200 - clock())
    await expect(roaming.get_by_test_id("notice")).to_have_attribute("data-kind", "lost")
    await shows(roaming, events=5)
    await shop.retains("orders", 205)
    await shop.cable.open()

    notice = roaming.get_by_test_id("notice")
    await expect(notice).to_contain_text("none missing")
    await shows(roaming, events=205)
    assert {event["subject"] for event in await shop.history("orders")} == set(orders)
    await board_is_the_log(roaming, shop)
    await expect(roaming.get_by_test_id("recovered")).to_have_attribute("data-recovered", "true")
    # Those that happened just before the page was back may count as live.
    resumed = await roaming.get_by_test_id("resumed").get_attribute("data-resumed")
    assert 150 <= int(resumed or 0) <= 200


async def open_both(page: Page, url: str) -> list[Page]:
    """Open the page over WebSocket, and another one in the same browser over SSE."""
    other = await page.context.new_page()
    for each, transport in ((page, "websocket"), (other, "sse")):
        await open_page(each, url, transport)
    return [page, other]


async def test_a_browser_that_goes_offline_says_so_and_catches_up(
    shop: Site, roaming: Page
) -> None:
    pages = await open_both(roaming, f"{shop.url}/demo/")
    await shop.place()
    for page in pages:
        await shows(page, events=1)
    await roaming.context.set_offline(True)
    for page in pages:
        await expect(page.get_by_test_id("state")).to_have_text("Offline")
    for _ in range(20):
        await shop.place()
    await shop.retains("orders", 21)
    for page in pages:
        await shows(page, events=1)
    await roaming.context.set_offline(False)
    for page in pages:
        await shows(page, events=21)
        await board_is_the_log(page, shop)
        await expect(page.get_by_test_id("recovered")).to_have_attribute("data-recovered", "true")


async def test_history_trimmed_past_the_position_is_a_gap_that_is_told(
    empty_site: Site, roaming: Page
) -> None:
    shop = empty_site
    config = copy_example(shop.folder, {"size = 2000": "size = 10"})
    await shop.start("run", str(config), "--port", "0")
    pages = await open_both(roaming, f"{shop.url}/demo/")
    await shop.place()
    for page in pages:
        await shows(page, events=1)
    await shop.cable.refuse()
    for order in [await shop.place() for _ in range(15)]:
        await shop.succeeded(order)
    await shop.cable.open()
    for page in pages:
        notice = page.get_by_test_id("notice")
        await expect(notice).to_have_attribute("data-kind", "gap")
        await expect(notice).to_contain_text("some older ones are no longer retained")
        await shows(page, events=11)
        await expect(page.get_by_test_id("recovered")).to_have_attribute("data-recovered", "false")
    # From here on all is well again, and goes on.
    await shop.place()
    for page in pages:
        await shows(page, events=12)


async def test_a_gateway_that_is_restarted_says_goodbye_and_nothing_is_missed(
    empty_site: Site, roaming: Page
) -> None:
    shop = empty_site
    config = copy_example(shop.folder, {"[server]": '[server]\ngoodbye_window = "1s"'})
    await shop.start("run", str(config), "--port", "0")
    await open_page(roaming, f"{shop.url}/demo/")
    await shop.place()
    await shows(roaming, events=1)
    await shop.gateway.stop()
    state = roaming.get_by_test_id("state")
    await expect(state).not_to_have_attribute("data-state", "open")
    await shop.start("run", str(config), "--port", "0")
    for order in [await shop.place() for _ in range(3)]:
        await shop.succeeded(order)
    await expect(state).to_have_attribute("data-state", "open")
    await shows(roaming, events=4)
    await board_is_the_log(roaming, shop)
    await expect(roaming.get_by_test_id("recovered")).to_have_attribute("data-recovered", "true")
