"""`web/gateway.js` in a page, as an application uses it, with a record of all that it said."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from playwright.async_api import Page

from tests.e2e.gateways import PATIENCE
from tests.servers import eventually

_OPEN = """
async ([options, functions]) => {
  for (const [name, exposed] of Object.entries(functions)) options[name] = () => window[exposed]();
  const { GatewayClient } = await import("/static/gateway.js");
  window.client = new GatewayClient(options);
  window.followed = new Map();
  window.said = { state: [], subscribed: [], goodbye: [], refused: [], event: [] };
  for (const name of ["state", "subscribed", "goodbye"]) {
    client.on(name, (detail) => said[name].push(detail));
  }
  client.on("refused", ({ channel, error }) => said.refused.push([channel, error.code]));
}
"""

_FOLLOW = """
([channel, options]) => {
  const take = ({ data }, { position }) => said.event.push({ channel, data, position });
  followed.set(channel, client.subscribe(channel, take, options));
}
"""


class Client:
    """A client in a page. What it emits is kept by name, what its handlers get as `event`."""

    def __init__(self, page: Page) -> None:
        self.page = page

    async def open(
        self, url: str, *, functions: Mapping[str, str] | None = None, **options: object
    ) -> None:
        """Make a client in a page of the gateway that has no script of its own.

        `functions` are options that are functions, by what they are called in the page.
        """
        await self.page.goto(f"{url}/static/base.css")
        await self.page.evaluate(_OPEN, [options, dict(functions or {})])

    async def connect(self) -> None:
        await self.page.evaluate("client.connect()")

    async def follow(self, *channels: str, after: str | None = None) -> None:
        """Subscribe to channels, all in one turn of the page's event loop."""
        options = {} if after is None else {"after": after}
        wanted = json.dumps([[channel, options] for channel in channels])
        await self.page.evaluate(f"() => {wanted}.forEach({_FOLLOW})")

    async def leave(self, channel: str) -> None:
        await self.page.evaluate("(channel) => followed.get(channel).unsubscribe()", channel)

    async def begin_anew(self, channel: str, after: str) -> None:
        """Leave a channel and follow it again, in one turn of the page's event loop."""
        wanted = json.dumps([channel, {"after": after}])
        leave = f"followed.get({json.dumps(channel)}).unsubscribe()"
        await self.page.evaluate(f"() => {{ {leave}; ({_FOLLOW})({wanted}); }}")

    async def said(self, name: str) -> list[Any]:
        """Return all that was said so far under this name."""
        record: list[Any] = await self.page.evaluate("(name) => said[name]", name)
        return record

    async def until(
        self, name: str, enough: Callable[[list[Any]], object], *, reason: str
    ) -> list[Any]:
        """Wait until what was said under this name is enough, and return it."""
        record: list[Any] = []

        async def is_enough() -> bool:
            record[:] = await self.said(name)
            return bool(enough(record))

        await eventually(is_enough, within=PATIENCE, reason=reason)
        return record

    async def state(self, wanted: str) -> dict[str, Any]:
        """Wait until the last change is to this state, and return that change."""
        changes = await self.until(
            "state", lambda said: said and said[-1]["state"] == wanted, reason=f"it was {wanted}"
        )
        change: dict[str, Any] = changes[-1]
        return change

    async def data(self, channel: str, count: int = 0) -> list[Any]:
        """Wait for so many events of a channel, and return the data of all that came."""

        def those(record: list[Any]) -> list[Any]:
            return [event["data"] for event in record if event["channel"] == channel]

        reason = f"{count} events of {channel} came"
        return those(
            await self.until("event", lambda said: len(those(said)) >= count, reason=reason)
        )


def so_many(count: int) -> Callable[[list[Any]], bool]:
    """What `until` waits for: that something was said so often."""
    return lambda said: len(said) >= count
