"""What the tests do with a page, in one place."""

from playwright.async_api import Page, expect


async def open_page(page: Page, url: str, transport: str = "websocket") -> None:
    """Open one of the gateway's pages, choose a transport, and wait until it is connected."""
    await page.goto(url)
    state = page.get_by_test_id("state")
    await expect(state).to_have_attribute("data-state", "open")
    if transport == "sse":
        async with page.expect_request("**/sse?*"):
            # The radio button itself is out of sight, behind its label.
            await page.get_by_test_id("transport-sse").check(force=True)
        await expect(state).to_have_attribute("data-state", "open")


async def cards(page: Page) -> list[str]:
    """Return the orders on the board, lane by lane and from top to bottom."""
    found: list[str] = await page.get_by_test_id("order-card").evaluate_all(
        "cards => cards.map((card) => card.dataset.order)"
    )
    return found
