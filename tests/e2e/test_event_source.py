"""A page that has nothing of ours: the browser's own EventSource, and what it makes of `/sse`."""

from typing import Any

import pytest
from playwright.async_api import Page

from tests.e2e.gateways import PATIENCE, Site
from tests.servers import eventually

pytestmark = pytest.mark.browser

CONFIG = """
[events]
anonymous = true
[[channels]]
pattern = "long:{name}"
history = { size = 100, ttl = "1h" }
[[channels]]
pattern = "short:{name}"
history = { size = 3, ttl = "1h" }
"""

FOLLOW = """
(channels) => {
  window.arrived = [];
  window.replies = [];
  const query = channels.map((channel) => `channel=${encodeURIComponent(channel)}`).join("&");
  const source = new EventSource(`/sse?${query}`);
  source.onmessage = ({ data }) => {
    const event = JSON.parse(data);
    arrived.push([event.channel, event.data]);
  };
  source.addEventListener("subscribed", ({ data }) => replies.push(JSON.parse(data).channels));
}
"""


@pytest.fixture
async def site(empty_site: Site) -> Site:
    (empty_site.folder / "gateway.toml").write_text(CONFIG)
    await empty_site.start("serve", "--port", "0")
    return empty_site


async def follow(page: Page, site: Site, *channels: str) -> None:
    """Open an EventSource in a page of the gateway's that has no script, and wait for its reply."""
    await page.goto(f"{site.url}/healthz")
    await page.evaluate(FOLLOW, channels)
    (reply,) = await replies(page, 1)
    assert {channel: each["recovered"] for channel, each in reply.items()} == dict.fromkeys(
        channels, True
    )


async def replies(page: Page, count: int) -> list[dict[str, Any]]:
    """Wait until the gateway has confirmed the stream so often, and return what it said."""

    async def said() -> list[dict[str, Any]] | None:
        found: list[dict[str, Any]] = await page.evaluate("replies")
        return found if len(found) >= count else None

    found: list[dict[str, Any]] | None
    found = await eventually(said, within=PATIENCE, reason=f"the stream began {count} times")
    assert found is not None
    return found


async def arrived(page: Page, count: int) -> list[tuple[str, object]]:
    """Wait until so many events have arrived, and return them: of each its channel and its data."""

    async def enough() -> bool:
        return bool(await page.evaluate("arrived.length") >= count)

    await eventually(enough, within=PATIENCE, reason=f"{count} events arrived")
    return [(channel, data) for channel, data in await page.evaluate("arrived")]


async def test_two_channels_on_one_event_source_resume_together(site: Site, roaming: Page) -> None:
    await follow(roaming, site, "long:a", "long:b")
    published: list[tuple[str, object]] = [("long:a", 0), ("long:b", 1)]
    await site.publish(*published)
    await arrived(roaming, 2)

    await site.cable.refuse()
    missed: list[tuple[str, object]] = [
        ("long:b" if number % 3 else "long:a", number) for number in range(2, 40)
    ]
    await site.publish(*missed[:20])
    await site.publish(*missed[20:])
    await site.cable.open()

    _, again = await replies(roaming, 2)
    assert [again[channel]["recovered"] for channel in ("long:a", "long:b")] == [True, True]
    last: tuple[str, object] = ("long:a", "live")
    await site.publish(last)
    everything = [*published, *missed, last]
    assert await arrived(roaming, len(everything)) == everything


async def test_an_event_source_is_told_which_channel_has_lost_events(
    site: Site, roaming: Page
) -> None:
    await follow(roaming, site, "long:a", "short:b")
    await site.publish(("long:a", 0), ("short:b", 0))
    await arrived(roaming, 2)

    await site.cable.refuse()
    await site.publish(*(("short:b", number) for number in range(1, 6)), ("long:a", 6))
    await site.cable.open()

    _, again = await replies(roaming, 2)
    assert again["long:a"]["recovered"] is True
    assert again["short:b"]["recovered"] is False
    retained = [("short:b", 3), ("short:b", 4), ("short:b", 5), ("long:a", 6)]
    assert await arrived(roaming, 6) == [("long:a", 0), ("short:b", 0), *retained]


async def test_an_event_source_follows_a_gateway_that_is_restarted(
    site: Site, roaming: Page
) -> None:
    await follow(roaming, site, "long:a")
    await site.publish(("long:a", 0))
    await arrived(roaming, 1)
    await site.gateway.stop()
    await site.start("serve", "--port", "0")
    await site.publish(("long:a", 1), ("long:a", 2))
    assert await arrived(roaming, 3) == [("long:a", 0), ("long:a", 1), ("long:a", 2)]
    assert (await replies(roaming, 2))[-1]["long:a"]["recovered"] is True
