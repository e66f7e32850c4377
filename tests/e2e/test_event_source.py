"""A page that has nothing of ours: the browser's own EventSource, and what it makes of `/sse`."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from playwright.async_api import Page

from tests.e2e.gateways import PATIENCE, Site, site
from tests.servers import eventually, short_directory

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


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[Site]:
    """One gateway for all tests here; each has channels of its own."""
    with short_directory() as folder:
        (folder / "gateway.toml").write_text(CONFIG)
        async with site(folder) as server:
            await server.start("serve", "--port", "0")
            yield server


async def follow(page: Page, server: Site, *channels: str) -> None:
    """Open an EventSource in a page of the gateway's that has no script, and wait for its reply."""
    await page.goto(f"{server.url}/static/base.css")
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


async def test_two_channels_on_one_event_source_resume_together(
    server: Site, roaming: Page
) -> None:
    await follow(roaming, server, "long:a", "long:b")
    published: list[tuple[str, object]] = [("long:a", 0), ("long:b", 1)]
    await server.publish(*published)
    await arrived(roaming, 2)

    await server.cable.refuse()
    missed: list[tuple[str, object]] = [
        ("long:b" if number % 3 else "long:a", number) for number in range(2, 40)
    ]
    await server.publish(*missed[:20])
    await server.publish(*missed[20:])
    await server.cable.open()

    _, again = await replies(roaming, 2)
    assert [again[channel]["recovered"] for channel in ("long:a", "long:b")] == [True, True]
    last: tuple[str, object] = ("long:a", "live")
    await server.publish(last)
    everything = [*published, *missed, last]
    assert await arrived(roaming, len(everything)) == everything


async def test_an_event_source_is_told_which_channel_has_lost_events(
    server: Site, roaming: Page
) -> None:
    await follow(roaming, server, "long:c", "short:d")
    await server.publish(("long:c", 0), ("short:d", 0))
    await arrived(roaming, 2)

    await server.cable.refuse()
    await server.publish(*(("short:d", number) for number in range(1, 6)), ("long:c", 6))
    await server.cable.open()

    _, again = await replies(roaming, 2)
    assert again["long:c"]["recovered"] is True
    assert again["short:d"]["recovered"] is False
    retained = [("short:d", 3), ("short:d", 4), ("short:d", 5), ("long:c", 6)]
    assert await arrived(roaming, 6) == [("long:c", 0), ("short:d", 0), *retained]


async def test_an_event_source_follows_a_gateway_that_is_restarted(
    server: Site, roaming: Page
) -> None:
    await follow(roaming, server, "long:e")
    await server.publish(("long:e", 0))
    await arrived(roaming, 1)
    await server.gateway.stop()
    await server.start("serve", "--port", "0")
    await server.publish(("long:e", 1), ("long:e", 2))
    assert await arrived(roaming, 3) == [("long:e", 0), ("long:e", 1), ("long:e", 2)]
    assert (await replies(roaming, 2))[-1]["long:e"]["recovered"] is True
