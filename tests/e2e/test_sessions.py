"""Pages that show who they are, and those that must not get in: a real browser decides."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from itertools import count

import msgspec
import pytest
from playwright.async_api import BrowserContext, Page, expect

from gateway.blocks import Block, Subject
from gateway.broker.tickets import Admittance
from gateway.config import ChannelConfig, Config, HistoryConfig
from gateway.errors import CloseCode
from gateway.settings import Seconds
from tests.contract.serving import DETACHED, Serving, serving
from tests.e2e.clients import Client, so_many
from tests.identities import Register, Secured
from tests.servers import RunningServer, eventually

pytestmark = pytest.mark.browser

both_transports = pytest.mark.parametrize("transport", ["websocket", "sse"])

BRIEFLY = 3.0
"""Seconds for which tokens last that are to be renewed."""
QUICK = {"base": 20, "max": 200}


def secured(config: Config) -> Config:
    history = HistoryConfig(size=5000)
    return msgspec.structs.replace(
        config,
        auth=Secured(cookie="session", first_frame=Seconds(2)),
        channels=[
            ChannelConfig(
                pattern="own:{name}:{n}", subscribe="principal.id == name", history=history
            )
        ],
    )


@pytest.fixture
def register() -> Register:
    return Register()


@pytest.fixture
async def gateway(valkey: RunningServer, register: Register) -> AsyncIterator[Serving]:
    async with serving(
        valkey, DETACHED, change=secured, sources=[register], heartbeat=Seconds(1)
    ) as running:
        yield running


def url_of(gateway: Serving) -> str:
    return f"http://127.0.0.1:{gateway.port}"


@asynccontextmanager
async def publishing(gateway: Serving, channel: str) -> AsyncIterator[list[int]]:
    """Publish 0, 1, 2, ... for as long as the block lasts."""
    published: list[int] = []
    stop = asyncio.Event()

    async def publish() -> None:
        for number in count():
            if stop.is_set():
                return
            await gateway.publish(channel, number)
            published.append(number)
            await asyncio.sleep(0.01)

    task = asyncio.create_task(publish())
    try:
        yield published
    finally:
        stop.set()
        await task


async def lend(page: Page, register: Register, *, lasts: float | None) -> list[str]:
    """Let a page have tokens; return those that it asked for."""
    given: list[str] = []

    async def token() -> str:
        given.append(register.issue("ann", lasts=lasts))
        return given[-1]

    await page.expose_function("freshToken", token)
    return given


async def sell(page: Page, gateway: Serving, register: Register) -> list[str]:
    """Let a page have tickets, as its own server would; return those that it asked for."""
    given: list[str] = []
    ann = register.of(register.issue("ann"))

    async def ticket() -> str:
        tickets = gateway.broker.tickets
        given.append(await tickets.issue(Admittance(principal=ann), ttl_ms=30_000))
        return given[-1]

    await page.expose_function("freshTicket", ticket)
    return given


def longer(those: list[str], than: int) -> bool:
    return len(those) > than


@both_transports
async def test_a_session_is_refreshed_as_often_as_it_expires_and_no_event_is_lost(
    gateway: Serving, client: Client, register: Register, transport: str
) -> None:
    tokens = await lend(client.page, register, lasts=BRIEFLY)
    functions = {"token": "freshToken"}
    await client.open(url_of(gateway), functions=functions, transport=transport, backoff=QUICK)
    await client.follow("own:ann:1", after="earliest")
    await client.connect()
    await client.state("open")
    async with publishing(gateway, "own:ann:1") as published:
        await eventually(lambda: len(tokens) >= 4, within=60, reason="tokens were renewed")
        await client.data("own:ann:1", len(published))
    assert await client.data("own:ann:1", len(published)) == published
    assert {each["recovered"] for each in await client.said("subscribed")} == {True}
    goodbyes = [each["code"] for each in await client.said("goodbye")]
    if transport == "websocket":
        states = [each["state"] for each in await client.said("state")]
        assert states == ["connecting", "open"], "it was refreshed in place"
        assert goodbyes == []
    else:
        assert set(goodbyes) == {4003}


@both_transports
async def test_a_page_with_tickets_subscribes_and_goes_on_after_an_interruption(
    gateway: Serving, client: Client, register: Register, transport: str
) -> None:
    tickets = await sell(client.page, gateway, register)
    functions = {"ticket": "freshTicket"}
    await client.open(url_of(gateway), functions=functions, transport=transport, backoff=QUICK)
    await client.follow("own:ann:1", after="earliest")
    await client.connect()
    await client.state("open")
    async with publishing(gateway, "own:ann:1") as published:
        await client.data("own:ann:1", 20)
        for _ in range(3):
            used = len(tickets)
            gateway.gateway.hub.dismiss(CloseCode.SHUTDOWN, window_ms=2000)
            await eventually(partial(longer, tickets, used), within=60, reason="it came back")
            await client.data("own:ann:1", len(published))
        await client.follow("own:ann:2", after="earliest")
        await gateway.publish("own:ann:2", "late")
        assert await client.data("own:ann:2", 1) == ["late"]
    assert await client.data("own:ann:1", len(published)) == published
    assert len(set(tickets)) == len(tickets) >= 4


@both_transports
async def test_a_token_that_lapsed_meanwhile_is_replaced_once(
    gateway: Serving, client: Client, register: Register, transport: str
) -> None:
    stale, good = register.issue("ann", lasts=-1), register.issue("ann")
    given = iter([stale, good])

    async def token() -> str:
        return next(given)

    await client.page.expose_function("freshToken", token)
    functions = {"token": "freshToken"}
    await client.open(url_of(gateway), functions=functions, transport=transport, backoff=QUICK)
    await client.follow("own:ann:1")
    await client.connect()
    await client.until("subscribed", so_many(1), reason="it was let in with the second token")


@both_transports
async def test_a_token_that_is_no_good_ends_it(
    gateway: Serving, client: Client, transport: str
) -> None:
    await client.open(url_of(gateway), token="made-up", transport=transport, backoff=QUICK)
    await client.follow("own:ann:1")
    await client.connect()
    assert (await client.state("closed"))["code"] == 4501


@both_transports
async def test_who_is_blocked_is_sent_away_for_good(
    gateway: Serving, client: Client, register: Register, transport: str
) -> None:
    await lend(client.page, register, lasts=None)
    functions = {"token": "freshToken"}
    await client.open(url_of(gateway), functions=functions, transport=transport, backoff=QUICK)
    await client.follow("own:ann:1")
    await client.connect()
    await client.until("subscribed", so_many(1), reason="it was let in")
    await gateway.gateway.revocation.block(Block.of(Subject.PRINCIPAL, "ann"))
    assert (await client.state("closed"))["code"] == 4502


async def signed_in(context: BrowserContext, gateway: Serving, register: Register) -> None:
    """Give a browser the cookie that a login page would."""
    value = register.issue("ann")
    await context.add_cookies([{"name": "session", "value": value, "url": url_of(gateway)}])


_WEBSOCKET = """
(url) => new Promise((resolve) => {
  const socket = new WebSocket(url);
  const said = [];
  socket.onopen = () => socket.send('{"id":1,"subscribe":{"channel":"own:ann:1"}}');
  socket.onmessage = ({ data }) => {
    said.push(...Object.keys(JSON.parse(data)).filter((name) => name !== "id"));
    if (said.includes("subscribed")) resolve([said, null]);
  };
  socket.onclose = ({ code }) => resolve([said, code]);
})
"""
_EVENT_SOURCE = """
(url) => new Promise((resolve) => {
  const source = new EventSource(url, { withCredentials: true });
  source.addEventListener("subscribed", () => resolve("subscribed"));
  source.onerror = () => resolve("refused");
})
"""


async def test_a_cookie_is_for_pages_of_the_gateway_and_not_for_those_of_another_origin(
    gateway: Serving, client: Client, register: Register, valkey: RunningServer
) -> None:
    socket = f"ws://127.0.0.1:{gateway.port}/ws"
    stream = f"{url_of(gateway)}/sse?channel=own%3Aann%3A1"
    page = client.page
    await signed_in(page.context, gateway, register)
    await page.goto(f"{url_of(gateway)}/static/base.css")
    assert await page.evaluate(_WEBSOCKET, socket) == [["subscribed"], None]
    assert await page.evaluate(_EVENT_SOURCE, stream) == "subscribed"
    async with serving(valkey, DETACHED) as elsewhere:
        await page.goto(f"{url_of(elsewhere)}/static/base.css")
        assert await page.evaluate(_EVENT_SOURCE, stream) == "refused"
        said, code = await page.evaluate(_WEBSOCKET, socket)
        assert "subscribed" not in said
        assert code is not None


async def test_a_plain_event_source_resumes_by_its_cookie(
    gateway: Serving, client: Client, register: Register
) -> None:
    page = client.page
    await signed_in(page.context, gateway, register)
    await page.goto(f"{url_of(gateway)}/static/base.css")
    await page.evaluate(
        """() => {
          window.heard = [];
          const source = new EventSource("/sse?channel=own%3Aann%3A1");
          source.onmessage = ({ data }) => heard.push(JSON.parse(data).data);
          source.addEventListener("subscribed", () => { window.ready = (window.ready ?? 0) + 1; });
        }"""
    )
    await page.wait_for_function("() => window.ready === 1")
    await gateway.publish("own:ann:1", 1)
    await page.wait_for_function("() => heard.length === 1")
    gateway.gateway.hub.dismiss(CloseCode.SHUTDOWN, window_ms=2000)
    await gateway.publish("own:ann:1", 2)
    await page.wait_for_function("() => window.ready === 2 && heard.length === 2")
    assert await page.evaluate("heard") == [1, 2]


async def test_the_console_takes_a_token_and_keeps_it_nowhere(
    gateway: Serving, client: Client, register: Register
) -> None:
    page = client.page
    await page.goto(url_of(gateway))
    state = page.get_by_test_id("state")
    await expect(state).to_have_text("Refused (4501)")
    identity, note = page.get_by_test_id("identity"), page.get_by_test_id("identity-note")
    await expect(identity).to_have_text("Sign in")
    await expect(note).to_contain_text("wants to know who you are")
    await page.get_by_test_id("token").fill("made-up")
    await page.get_by_test_id("identify").click()
    await expect(note).to_contain_text("was not accepted")
    token = register.issue("ann")
    await page.get_by_test_id("token").fill(token)
    await page.get_by_test_id("identify").click()
    await expect(state).to_have_text("Live")
    await expect(identity).to_have_text("With a token")
    await expect(note).not_to_be_visible()
    await page.get_by_test_id("channel-name").fill("own:ann:1")
    await page.get_by_test_id("channel-subscribe").click()
    await expect(page.get_by_test_id("recovered")).to_have_text("live")
    kept = (
        "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, location.href])"
    )
    assert token not in await page.evaluate(kept)
    assert await page.get_by_test_id("token").input_value() == ""
