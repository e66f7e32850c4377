"""The client for browsers, `web/gateway.js`, before a real gateway."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

import pytest
from playwright.async_api import Page, Route

from tests.e2e.clients import Client, so_many
from tests.e2e.gateways import Site, site
from tests.proxy import Proxy
from tests.servers import short_directory

pytestmark = pytest.mark.browser

BEAT = 200
"""Milliseconds between heartbeats."""

CONFIG = f"""
[server]
heartbeat = "{BEAT}ms"
[events]
anonymous = true
[[channels]]
pattern = "long:{{name}}"
history = {{ size = 5000, ttl = "1h" }}
[[channels]]
pattern = "short:{{name}}"
history = {{ size = 3, ttl = "1h" }}
"""

QUICK = {"base": 20, "max": 200}
"""Milliseconds for a backoff that a test can wait for."""

both_transports = pytest.mark.parametrize("transport", ["websocket", "sse"])


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[Site]:
    """One gateway for all tests here; each has channels of its own."""
    with short_directory() as folder:
        (folder / "gateway.toml").write_text(CONFIG)
        async with site(folder) as site_:
            await site_.start("serve", "--port", "0")
            yield site_


@pytest.fixture
async def cable(server: Site) -> AsyncIterator[Proxy]:
    cable = Proxy(server.gateway.port)
    await cable.open()
    yield cable
    cable.thaw()
    await cable.refuse()


@asynccontextmanager
async def publishing(server: Site, *channels: str) -> AsyncIterator[list[int]]:
    """Publish 0, 1, 2, ... to all these channels, for as long as the block lasts."""
    published: list[int] = []
    stop = asyncio.Event()

    async def publish() -> None:
        for number in count():
            if stop.is_set():
                return
            await server.publish(*((channel, number) for channel in channels))
            published.append(number)
            await asyncio.sleep(0.005)

    task = asyncio.create_task(publish())
    try:
        yield published
    finally:
        stop.set()
        await task


@both_transports
async def test_however_often_the_cable_is_pulled_each_event_comes_once_and_in_order(
    server: Site, cable: Proxy, client: Client, transport: str
) -> None:
    a, b = f"long:cut-{transport}-a", f"long:cut-{transport}-b"
    await client.open(cable.url, transport=transport, backoff=QUICK)
    await client.follow(a, b, after="earliest")
    await client.connect()
    await client.state("open")
    async with publishing(server, a, b) as published:
        for number in range(5):
            await client.data(a, 15 * (number + 1))
            cable.cut()
    for channel in (a, b):
        assert await client.data(channel, len(published)) == published
    subscribed = await client.said("subscribed")
    assert {each["recovered"] for each in subscribed} == {True}
    assert sum(each["channel"] == a and each["resumed"] for each in subscribed) > 3


@both_transports
async def test_channels_come_and_go_at_run_time_and_the_others_miss_nothing(
    server: Site, cable: Proxy, client: Client, transport: str
) -> None:
    a, b, c = (f"long:{name}-{transport}" for name in "abc")
    await client.open(cable.url, transport=transport)
    await client.follow(a, after="earliest")
    await client.connect()
    async with publishing(server, a, b, c) as published:
        await client.data(a, 10)
        await client.follow(b)
        await client.data(b, 10)
        await client.follow(c, after="earliest")
        await client.data(c, 10)
        await client.leave(b)
        left = await client.data(b)
        await client.data(c, 10 + len(await client.data(c)))
        assert await client.data(b) == left, "events came from a channel that was left"
        await client.follow(b)
        await client.data(b, len(left) + 10)
    assert await client.data(a, len(published)) == published
    assert await client.data(c, len(published)) == published
    last = published[-1]
    await client.until("event", lambda said: (b, last) in heard(said), reason="b came to its end")
    again = (await client.data(b))[len(left) :]
    for part in (left, again):
        assert part == list(range(part[0], part[-1] + 1))
    assert again[0] > left[-1]
    (state,) = {each["state"] for each in (await client.said("state"))[1:]}
    assert state == "open"


def heard(said: list[dict[str, object]]) -> set[tuple[object, object]]:
    return {(event["channel"], event["data"]) for event in said}


@pytest.mark.parametrize("when", ["before it connects", "when it is connected"])
async def test_no_stream_carries_a_channel_that_is_being_read_from_its_history(
    server: Site, cable: Proxy, client: Client, when: str
) -> None:
    a, b, c = (f"long:{name}-{when.replace(' ', '-')}" for name in "abc")
    await server.publish((c, 0), (c, 1))
    goes_on = await hold_second_page(client.page)
    await client.open(cable.url, transport="sse")
    await client.follow(a, b)
    if when == "before it connects":
        await client.follow(c, after="earliest")
        await client.connect()
    else:
        await client.connect()
        await client.until("subscribed", so_many(2), reason="two were subscribed")
        await client.follow(c, after="earliest")
    assert await client.data(c, 2) == [0, 1]
    await server.publish((c, 2))
    await client.leave(b)
    for number in range(3):  # to and fro, which is time enough for a stream that should not be
        await server.publish((a, number))
        await client.data(a, number + 1)
    async with client.page.expect_request("**/history?*"):  # the third: it has read the second
        goes_on.set()
    await server.publish((c, 3))
    assert await client.data(c, 4) == [0, 1, 2, 3]


async def hold_second_page(page: Page) -> asyncio.Event:
    """Let the second request for a history wait until the event is set."""
    goes_on = asyncio.Event()
    requests = count(1)

    async def pass_on(route: Route) -> None:
        if next(requests) == 2:
            await goes_on.wait()
        await route.continue_()

    await page.route("**/history?*", pass_on)
    return goes_on


async def test_the_transport_can_be_changed_at_any_time_and_nothing_is_missed(
    server: Site, cable: Proxy, client: Client
) -> None:
    a, b = "long:change-a", "long:change-b"
    await client.open(cable.url)
    await client.follow(a, b, after="earliest")
    await client.connect()
    async with publishing(server, a, b) as published:
        for number, transport in enumerate(["sse", "websocket", "sse", "websocket"]):
            await client.data(a, 10 * (number + 1))
            await client.page.evaluate("(transport) => client.use(transport)", transport)
    for channel in (a, b):
        assert await client.data(channel, len(published)) == published


@both_transports
async def test_each_channel_resumes_at_its_own_position(
    server: Site, cable: Proxy, client: Client, transport: str
) -> None:
    """Over SSE one position covers both: what the one has seen already must not come again."""
    old, new = f"long:own-{transport}", f"short:own-{transport}"
    await server.publish((old, 0), *((new, number) for number in range(9)), (old, 1))
    answer = await server.http.get(f"/channels/{old}/history", params={"limit": 1})
    start_of_old = answer.headers["Gateway-Position"]
    await client.open(cable.url, transport=transport)
    await client.follow(new, after="earliest")
    await client.connect()
    assert await client.data(new, 3) == [6, 7, 8]
    await client.page.evaluate("client.close()")
    await server.publish((new, 9))
    await client.follow(old, after=start_of_old)
    await client.connect()
    assert await client.data(old, 1) == [1]
    assert await client.data(new, 4) == [6, 7, 8, 9]
    subscribed = await client.said("subscribed")
    assert {each["channel"]: each["recovered"] for each in subscribed} == {old: True, new: True}


@both_transports
async def test_a_gap_is_told_of_the_channel_that_has_it(
    server: Site, cable: Proxy, client: Client, transport: str
) -> None:
    whole, torn = f"long:gap-{transport}", f"short:gap-{transport}"
    await client.open(cable.url, transport=transport, backoff=QUICK)
    await client.follow(whole, torn)
    await client.connect()
    await client.until("subscribed", so_many(2), reason="both were subscribed")
    await server.publish((whole, 0), (torn, 0))
    await client.data(torn, 1)
    await cable.refuse()
    await client.state("waiting")
    await server.publish((whole, 1), *((torn, number) for number in range(1, 6)))
    await cable.open()
    assert await client.data(whole, 2) == [0, 1]
    assert await client.data(torn, 4) == [0, 3, 4, 5]
    again = await client.until("subscribed", so_many(4), reason="both were again")
    assert {each["channel"]: (each["recovered"], each["resumed"]) for each in again[2:]} == {
        whole: (True, True),
        torn: (False, True),
    }


@both_transports
async def test_a_network_that_goes_silent_is_noticed_by_the_missing_heartbeats(
    server: Site, cable: Proxy, client: Client, transport: str
) -> None:
    channel = f"long:silent-{transport}"
    await client.open(cable.url, transport=transport, heartbeat=4 * BEAT, backoff=QUICK)
    await client.follow(channel)
    await client.connect()
    await client.state("open")
    # An EventSource learns from the first heartbeat that there are any: let there be one.
    await client.page.evaluate(
        """(channel) => new Promise((resolve) => {
          const source = new EventSource(`/sse?channel=${channel}`);
          let beats = 0;
          source.addEventListener("position", () => {
            if (++beats === 2) resolve(source.close());
          });
        })""",
        channel,
    )
    cable.freeze()
    await server.publish((channel, "missed"))
    await client.until(
        "state",
        lambda said: "silence" in {change["reason"] for change in said},
        reason="the silence was noticed",
    )
    cable.thaw()
    assert await client.data(channel, 1) == ["missed"]
    await client.state("open")


@both_transports
async def test_a_channel_that_cannot_be_had_is_refused_and_the_others_are_not(
    server: Site, cable: Proxy, client: Client, transport: str
) -> None:
    channel = f"long:fine-{transport}"
    await client.open(cable.url, transport=transport, backoff=QUICK)
    await client.follow(channel, "no-such-channel")
    await client.connect()
    refused = await client.until("refused", len, reason="a channel was refused")
    assert refused == [["no-such-channel", "unknown-channel"]]
    await client.until("subscribed", len, reason="the other was subscribed")
    await server.publish((channel, 1))
    assert await client.data(channel, 1) == [1]


async def test_goodbye_is_told_with_its_delay_and_the_client_comes_back(
    empty_site: Site, client: Client
) -> None:
    window = '[server]\ngoodbye_window = "500ms"'
    (empty_site.folder / "gateway.toml").write_text(CONFIG.replace("[server]", window))
    await empty_site.start("serve", "--port", "0")
    clients = {"websocket": client, "sse": Client(await client.page.context.new_page())}
    for transport, each in clients.items():
        await each.open(empty_site.url, transport=transport, backoff=QUICK)
        await each.follow("long:a", after="earliest")
        await each.connect()
        await each.state("open")
    await empty_site.publish(("long:a", 0))
    for each in clients.values():
        await each.data("long:a", 1)
    await empty_site.gateway.stop()
    for each in clients.values():
        (goodbye,) = await each.until("goodbye", len, reason="goodbye was said")
        assert goodbye["code"] == 4000
        assert 0 <= goodbye["retryMs"] <= 500
        (told,) = (said for said in await each.said("state") if said["reason"] == "goodbye")
        assert (told["state"], told["delay"]) == ("waiting", goodbye["retryMs"])
    await empty_site.start("serve", "--port", "0")
    await empty_site.publish(("long:a", 1))
    for each in clients.values():
        assert await each.data("long:a", 2) == [0, 1]
        assert (await each.said("subscribed"))[-1]["recovered"] is True


async def test_a_wrong_frame_ends_the_connection_for_good(
    cable: Proxy, client: Client, server: Site
) -> None:
    await client.open(cable.url, backoff=QUICK)
    await client.page.evaluate(
        """() => {
          const { send } = WebSocket.prototype;
          WebSocket.prototype.send = function (text) {
            WebSocket.prototype.send = send;
            send.call(this, "this is no frame");
          };
        }"""
    )
    await client.follow("long:wrong")
    await client.connect()
    change = await client.state("closed")
    assert change["code"] == 4500


@both_transports
async def test_a_command_is_sent_and_followed_to_its_end(
    busy_shop: Site, client: Client, transport: str
) -> None:
    await client.open(busy_shop.url, transport=transport)
    await client.connect()
    over = "websocket" if transport == "websocket" else "http"
    if over == "websocket":
        await client.state("open")
    life = await client.page.evaluate(
        """(over) => new Promise(async (resolve) => {
          const order = { customer: "c-life", sku: "tea-250", qty: 2 };
          const { id } = await client.send("/orders", order, { over });
          const steps = [];
          const subscription = client.follow(id, ({ data }) => {
            steps.push(data.status);
            if (data.status === "succeeded") resolve({ id, steps });
          });
        })""",
        over,
    )
    assert life["steps"] == ["accepted", "started", "succeeded"]
    assert (await busy_shop.status(life["id"]))["status"] == "succeeded"


async def test_the_outcome_can_be_waited_for_and_a_refusal_is_an_error_with_its_code(
    busy_shop: Site, client: Client
) -> None:
    await client.open(busy_shop.url)
    order = {"customer": "c-wait", "sku": "tea-250", "qty": 2}
    status = await client.page.evaluate('(o) => client.send("/orders", o, { wait: 10 })', order)
    assert (status["status"], status["result"]["total"]) == ("succeeded", 15.6)
    read = await client.page.evaluate('client.history("orders:c-wait")')
    assert [event["subject"] for event in read["events"]] == [status["id"]]
    assert (read["recovered"], read["position"].count("-")) == (True, 2)

    refuse = """async (over) => {
      try {
        await client.send("/orders", { customer: "c-wait" }, { over });
      } catch ({ name, code, status, isTransient }) {
        return { name, code, status, isTransient };
      }
    }"""
    expected = {"name": "GatewayError", "code": "validation-failed", "status": 422}
    assert await client.page.evaluate(refuse, "http") == {**expected, "isTransient": False}
    unreachable = {"name": "GatewayError", "code": "unreachable", "status": 0}
    assert await client.page.evaluate(refuse, "websocket") == {**unreachable, "isTransient": True}
    await client.connect()
    await client.state("open")
    assert await client.page.evaluate(refuse, "websocket") == {**expected, "isTransient": False}
