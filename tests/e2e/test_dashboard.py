"""The example's dashboard at `/demo/`, in a real browser, before a real gateway."""

import re

import pytest
from playwright.async_api import Page, expect

from tests.e2e.gateways import PATIENCE, Site
from tests.e2e.pages import cards, open_page
from tests.servers import eventually

pytestmark = pytest.mark.browser


async def test_an_order_posted_over_http_goes_through_its_statuses_on_the_board(
    shop: Site, page: Page
) -> None:
    await open_page(page, f"{shop.url}/demo/")
    order = await shop.place("c-7", "coffee-500", 3)
    card = page.locator(f'[data-testid=order-card][data-order="{order}"]')
    await expect(card).to_have_attribute("data-status", "accepted")
    await expect(card).to_contain_text("coffee-500 \u00d7 3")
    await expect(card).to_contain_text("38.70")

    parcel = {"customer": "c-7", "tracking": "JD0146"}
    shipped = await shop.http.post(f"/orders/{order}/ship", json=parcel)
    assert shipped.status_code == 202
    await expect(card).to_have_attribute("data-status", "shipped")
    await expect(page.get_by_test_id("cards-shipped").locator(card)).to_be_visible()

    too_large = await shop.place(qty=120)
    rejected = page.locator(f'[data-testid=order-card][data-order="{too_large}"]')
    await expect(rejected).to_have_attribute("data-status", "rejected")
    await expect(rejected).to_contain_text("at most 100 can be packed at once")

    for status, count in {"accepted": 0, "shipped": 1, "rejected": 1}.items():
        await expect(page.get_by_test_id(f"count-{status}")).to_have_text(str(count))
    await expect(page.get_by_test_id("total")).to_have_attribute("data-total", "3")
    await expect(page.get_by_test_id("orders-total")).to_have_text("2")
    await expect(page.get_by_test_id("duplicates")).to_have_attribute("data-duplicates", "0")
    await expect(page.get_by_test_id("latency-median")).to_have_text(re.compile(r"\d m?s$"))


async def test_the_form_places_an_order_that_the_button_on_its_card_ships(
    busy_shop: Site, page: Page
) -> None:
    await open_page(page, f"{busy_shop.url}/demo/")
    await page.get_by_test_id("order-customer").fill("c-42")
    await page.get_by_test_id("order-sku").select_option("cocoa-250")
    await page.get_by_test_id("order-qty").fill("4")
    await page.get_by_test_id("order-submit").click()
    outcome = page.get_by_test_id("order-outcome")
    await expect(outcome).to_have_text(re.compile(r"accepted, seen here after .*\d m?s\.$"))
    card = page.get_by_test_id("order-card").filter(has_text="c-42")
    await expect(card).to_contain_text("cocoa-250 \u00d7 4")
    await card.get_by_test_id("ship").click()
    await expect(card).to_have_attribute("data-status", "shipped")
    events = await busy_shop.history("orders:c-42")
    assert [event["type"] for event in events] == ["order.accepted", "order.shipped"]

    await page.get_by_test_id("order-qty").fill("500")
    await page.get_by_test_id("order-submit").click()
    await expect(outcome).to_contain_text("rejected, at most 100 can be packed at once")


async def test_a_form_that_is_filled_in_wrongly_is_not_sent(busy_shop: Site, page: Page) -> None:
    before = await busy_shop.history("orders")
    await open_page(page, f"{busy_shop.url}/demo/")
    await page.get_by_test_id("order-customer").fill("no spaces: or colons")
    await page.get_by_test_id("order-submit").click()
    await expect(page.locator("#customer:invalid")).to_be_focused()
    await expect(page.get_by_test_id("order-outcome")).to_contain_text("Goes out as")
    assert await busy_shop.history("orders") == before


@pytest.mark.parametrize("transport", ["websocket", "sse"])
async def test_the_load_button_places_as_many_orders_as_it_says(
    busy_shop: Site, page: Page, transport: str
) -> None:
    before = len(await busy_shop.history("orders"))
    await open_page(page, f"{busy_shop.url}/demo/", transport)
    await page.get_by_test_id("load-rate").fill("60")
    await page.get_by_test_id("load-seconds").fill("1")
    button, note = page.get_by_test_id("load-button"), page.get_by_test_id("load-note")
    await button.click()
    await expect(note).to_have_attribute("data-accepted", "60")
    await expect(note).to_have_attribute("data-failed", "0")
    await expect(button).to_have_text("Start load")
    total = str(before + 60)
    await expect(page.get_by_test_id("total")).to_have_attribute("data-total", total)
    await expect(page.get_by_test_id("duplicates")).to_have_attribute("data-duplicates", "0")
    assert len(await busy_shop.history("orders")) == before + 60


async def test_a_load_can_be_stopped(busy_shop: Site, page: Page) -> None:
    before = len(await busy_shop.history("orders"))
    await open_page(page, f"{busy_shop.url}/demo/")
    await page.get_by_test_id("load-seconds").fill("600")
    button, note = page.get_by_test_id("load-button"), page.get_by_test_id("load-note")
    await button.click()
    await expect(button).to_have_text("Stop")
    await expect(note).not_to_have_attribute("data-accepted", "0")
    await button.click()
    await expect(button).to_have_text("Start load")
    sent = int(await note.get_attribute("data-sent") or 0)
    await expect(note).to_have_attribute("data-accepted", str(sent))
    total = str(before + sent)
    await expect(page.get_by_test_id("total")).to_have_attribute("data-total", total)


async def test_a_page_that_is_opened_later_shows_the_same_board(shop: Site, page: Page) -> None:
    orders = [await shop.place(qty=qty) for qty in (1, 120, 2, 3)]
    for order in orders:
        await shop.succeeded(order)
    await open_page(page, f"{shop.url}/demo/")
    expected = [orders[3], orders[2], orders[0], orders[1]]

    async def shown() -> bool:
        return await cards(page) == expected

    await eventually(shown, within=PATIENCE, reason="all orders were on the board, newest first")
    # Nothing of that happened while the page was there, so none of it is latency.
    await expect(page.get_by_test_id("latency-median")).to_have_text("\u2013")


async def test_the_theme_can_be_chosen_and_stays(busy_shop: Site, page: Page) -> None:
    await open_page(page, f"{busy_shop.url}/demo/")
    await page.get_by_label("Switch between light and dark").click()
    await expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    await open_page(page, f"{busy_shop.url}/")
    await expect(page.locator("html")).to_have_attribute("data-theme", "dark")
