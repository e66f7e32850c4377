"""The console at `/`, in a real browser, before a real gateway."""

import json
import re

import pytest
from playwright.async_api import Page, expect

from tests.e2e.gateways import Site
from tests.e2e.pages import open_page

pytestmark = pytest.mark.browser

DURATION = re.compile(r"^(<1|[\d.]+) m?s$")
POSITION = re.compile(r"\d events? · \w+-\d+-\d+$")


class Line:
    """The line of one channel that is subscribed to."""

    def __init__(self, page: Page, channel: str) -> None:
        self.row = page.locator(f'[data-testid=subscription][data-channel="{channel}"]')
        self.badge = self.row.get_by_test_id("recovered")
        self.position = self.row.get_by_test_id("channel-position")
        self.leave = self.row.get_by_test_id("channel-unsubscribe")


async def subscribe(page: Page, channel: str, start: str = "now") -> Line:
    await page.get_by_test_id("channel-name").fill(channel)
    await page.get_by_test_id("channel-from").select_option(start)
    await page.get_by_test_id("channel-subscribe").click()
    return Line(page, channel)


@pytest.mark.parametrize("transport", ["websocket", "sse"])
async def test_a_command_that_is_posted_is_followed_and_its_events_arrive(
    busy_shop: Site, page: Page, transport: str
) -> None:
    await open_page(page, f"{busy_shop.url}/", transport)
    # What can be subscribed to without a parameter is subscribed to from the start.
    everybodys = Line(page, "orders")
    await expect(everybodys.badge).to_have_attribute("data-recovered", "true")
    customers = await subscribe(page, "orders:c-5")
    await expect(customers.badge).to_have_text("live")

    await expect(page.get_by_test_id("command-path")).to_have_value("/orders")
    order = {"customer": "c-5", "sku": "filters-100", "qty": 10}
    await page.get_by_test_id("command-body").fill(json.dumps(order))
    await page.get_by_test_id("command-send").click()

    life = page.get_by_test_id("life")
    await expect(life).to_have_attribute("data-status", "succeeded")
    await expect(life).to_contain_text("accepted")
    await expect(life).to_contain_text('"total":34.5')
    rows = page.get_by_test_id("event-row").filter(visible=True)
    await expect(rows).to_have_count(2)
    for line, name in ((everybodys, "orders"), (customers, "orders:c-5")):
        row = rows.filter(has=page.get_by_text(name, exact=True))
        await expect(row).to_contain_text("order.accepted")
        await expect(row.locator(".latency")).to_have_text(DURATION)
        await expect(line.row).to_have_attribute("data-events", "1")
        await expect(line.position).to_have_text(POSITION)
    await expect(page.get_by_test_id("received")).to_have_attribute("data-received", "2")
    await expect(page.get_by_test_id("latency-median")).to_have_text(DURATION)

    await rows.first.click()
    shown = await page.get_by_test_id("event-json").text_content()
    assert shown
    event = json.loads(shown)
    assert event["subject"] == await life.get_attribute("data-command")
    assert event["data"].items() >= order.items()


@pytest.mark.parametrize("transport", ["websocket", "sse"])
async def test_after_a_pause_it_resumes_with_recovered_true_and_what_it_missed(
    busy_shop: Site, page: Page, transport: str
) -> None:
    await open_page(page, f"{busy_shop.url}/", transport)
    line = Line(page, "orders")
    await expect(line.badge).to_have_attribute("data-recovered", "true")
    await busy_shop.place()
    await expect(line.row).to_have_attribute("data-events", "1")

    connect = page.get_by_test_id("connect")
    await connect.click()
    await expect(page.get_by_test_id("state")).to_have_attribute("data-state", "closed")
    for order in [await busy_shop.place() for _ in range(3)]:
        await busy_shop.succeeded(order)
    await expect(connect).to_have_text("Connect")
    await connect.click()
    await expect(line.badge).to_have_text("recovered: true")
    await expect(line.row).to_have_attribute("data-events", "4")
    replayed = page.get_by_test_id("event-row").filter(has=page.get_by_text("replay", exact=True))
    await expect(replayed).to_have_count(3)


async def test_a_channel_can_be_subscribed_to_from_its_beginning_and_left_again(
    busy_shop: Site, page: Page
) -> None:
    for order in [
        await busy_shop.place("c-81"),
        await busy_shop.place("c-2"),
        await busy_shop.place("c-81"),
    ]:
        await busy_shop.succeeded(order)
    await open_page(page, f"{busy_shop.url}/")
    line = await subscribe(page, "orders:c-81", "earliest")
    await expect(line.badge).to_have_text("recovered: true")
    await expect(line.row).to_have_attribute("data-events", "2")
    await line.leave.click()
    await expect(line.row).to_have_count(0)
    await busy_shop.place("c-81")
    await expect(Line(page, "orders").row).to_have_attribute("data-events", "1")
    await expect(page.get_by_test_id("received")).to_have_attribute("data-received", "3")


async def test_what_is_refused_is_explained_in_a_sentence(busy_shop: Site, page: Page) -> None:
    await open_page(page, f"{busy_shop.url}/")
    line = await subscribe(page, "no-such-channel")
    await expect(page.get_by_test_id("channel-note")).to_contain_text("no configured channel")
    await expect(line.row).to_have_count(0)
    await subscribe(page, "orders:{customer}")
    await expect(page.get_by_test_id("channel-note")).to_have_text(
        "Put a value in place of {customer}."
    )

    body = page.get_by_test_id("command-body")
    await body.fill('{"customer": ')
    await expect(page.get_by_test_id("command-body-note")).not_to_be_empty()
    await body.fill('{"customer": "c-81", "sku": "tea-250", "qty": "two"}')
    await expect(page.get_by_test_id("command-body-note")).to_be_empty()
    # Over the WebSocket, because of a refused POST the browser itself complains.
    await page.get_by_test_id("command-over-websocket").check(force=True)
    await page.get_by_test_id("command-send").click()
    await expect(page.get_by_test_id("command-note")).to_contain_text("422:")
    await expect(page.get_by_test_id("command-note")).to_contain_text("integer")

    await body.fill('{"customer": "c-81", "sku": "tea-250", "qty": 2}')
    await page.get_by_test_id("command-send").click()
    await expect(page.get_by_test_id("life")).to_have_attribute("data-status", "succeeded")
    await expect(page.get_by_test_id("command-note")).to_be_empty()


async def test_the_list_can_be_paused_filtered_and_cleared(busy_shop: Site, page: Page) -> None:
    await open_page(page, f"{busy_shop.url}/")
    rows = page.get_by_test_id("event-row").filter(visible=True)
    await busy_shop.place("c-81")
    await expect(rows).to_have_count(1)
    pause = page.get_by_test_id("pause")
    await pause.click()
    await busy_shop.place("c-2", sku="cocoa-250")
    await expect(pause).to_have_text("Resume (1)")
    await expect(rows).to_have_count(1)
    await pause.click()
    await expect(rows).to_have_count(2)
    await page.get_by_test_id("filter").fill("COCOA")
    await expect(rows).to_have_count(1)
    await expect(rows).to_contain_text("cocoa-250")
    await page.get_by_test_id("filter").fill("")
    await expect(rows).to_have_count(2)
    await page.get_by_test_id("clear").click()
    await expect(rows).to_have_count(0)
    await expect(page.get_by_text("Waiting for the first event.")).to_be_visible()
