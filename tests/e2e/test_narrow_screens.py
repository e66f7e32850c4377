"""The pages on telephones and tablets: nothing sticks out or lies over another thing."""

import re

import pytest
from playwright.async_api import Page, expect

from tests.e2e.gateways import Site
from tests.e2e.pages import open_page
from tests.proxy import Proxy

pytestmark = pytest.mark.browser

IN_THE_WAY = """
() => {
  const names = ["h1", "nav a", ".segments", "#state", "#connect", "#theme"];
  const bar = document.querySelector(".bar");
  const parts = names.flatMap((name) => [...bar.querySelectorAll(name)])
    .map((part) => [part.id || part.className || part.textContent, part.getBoundingClientRect()])
    .filter(([, box]) => box.width > 0);
  const found = [];
  for (const [name, box] of parts) {
    if (box.left < 0 || box.right > innerWidth) found.push(`${name} sticks out`);
    for (const [other, its] of parts) {
      const apart = box.right <= its.left || its.right <= box.left
        || box.bottom <= its.top || its.bottom <= box.top;
      if (name < other && !apart) found.push(`${name} and ${other} overlap`);
    }
  }
  for (const each of document.querySelectorAll(".state, .segments, .button, .badge")) {
    if (each.scrollWidth > each.clientWidth) found.push(`${each.textContent} is too wide`);
  }
  for (const each of document.querySelectorAll(".panel .input, .panel .button, .panel .segments")) {
    const box = each.getBoundingClientRect();
    const edge = each.closest(".panel").getBoundingClientRect().right - 8;
    if (box.width > 0 && box.right > edge) found.push(`${each.id} leaves its panel`);
  }
  if (document.documentElement.scrollWidth > innerWidth) found.push("the page is too wide");
  return found;
}
"""


@pytest.mark.parametrize("path", ["/", "/demo/"])
async def test_nothing_is_in_the_way_on_a_narrow_screen_whatever_the_state(
    busy_shop: Site, roaming: Page, path: str
) -> None:
    await busy_shop.place(qty=120)
    cable = Proxy(busy_shop.gateway.port)
    await cable.open()
    await open_page(roaming, f"{cable.url}{path}")
    for state, words in {"open": "Live", "waiting": "Reconnecting"}.items():
        if state == "waiting":
            # Makes the first wait as long, and its countdown as wide, as one after many attempts.
            await roaming.evaluate("Math.random = () => 150")
            await cable.refuse()
            countdown = roaming.locator("#state-countdown")
            await expect(countdown).to_have_text(re.compile(r"in [1-9]\d\.\d s"))
        await expect(roaming.get_by_test_id("state")).to_contain_text(words)
        for width in (320, 360, 375, 390, 560, 600, 720, 768, 920, 1024):
            await roaming.set_viewport_size({"width": width, "height": 844})
            assert await roaming.evaluate(IN_THE_WAY) == [], f"{state} at {width} pixels"
