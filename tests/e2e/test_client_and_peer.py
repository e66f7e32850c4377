"""The client for browsers before a gateway in the small, which says and does what a test wants."""

from collections.abc import AsyncIterator

import pytest
from starlette.responses import PlainTextResponse
from starlette.staticfiles import StaticFiles

from gateway.resources import web_dir
from tests.client.peer import Network, Peer, network
from tests.e2e.clients import Client, so_many

pytestmark = pytest.mark.browser

QUICK = {"base": 10, "max": 50}
"""Milliseconds for a backoff that a test can wait for."""

both_transports = pytest.mark.parametrize("transport", ["websocket", "sse"])


def peer_with_client() -> Peer:
    """A peer that serves the files of the client, one of which is a page without any script."""
    peer = Peer()
    peer.app.mount("/static", StaticFiles(directory=web_dir()))
    peer.app.add_route("/favicon.ico", lambda _: PlainTextResponse(""))
    return peer


@pytest.fixture
async def net() -> AsyncIterator[Network]:
    async with network(peer_with_client) as net:
        yield net


async def connected(net: Network, client: Client, transport: str, *channels: str) -> None:
    """Open a client and wait until it is subscribed to the channels."""
    await client.open(net.url, transport=transport, backoff=QUICK)
    await client.follow(*channels)
    await client.connect()
    reason = "all channels were subscribed"
    await client.until("subscribed", so_many(len(channels)), reason=reason)


async def test_the_wait_before_each_attempt_is_a_random_part_of_a_bound_that_doubles(
    net: Network, client: Client
) -> None:
    await client.open(net.url, backoff={"base": 40, "max": 300})
    await client.page.evaluate("Math.random = () => 0.5")
    await net.proxy.refuse()
    await client.follow("a")
    await client.connect()
    delays = await client.until("state", lambda said: len(waits(said)) >= 6, reason="6 attempts")
    assert waits(delays)[:6] == [20, 40, 80, 150, 150, 150]
    await net.proxy.open()
    await client.state("open")

    # Once a connection has lasted, the next loss is a first one again.
    await client.page.evaluate(
        """() => {
          const now = performance.now.bind(performance);
          performance.now = () => now() + 6000;
        }"""
    )
    before = len(await client.said("state"))
    net.proxy.cut()
    changes = await client.until("state", lambda said: len(said) > before, reason="it was lost")
    assert waits(changes[before:])[0] == 20


def waits(changes: list[dict[str, object]]) -> list[object]:
    return [change["delay"] for change in changes if change["delay"] is not None]


@both_transports
async def test_it_resumes_where_it_stands_and_drops_what_comes_twice(
    net: Network, client: Client, transport: str
) -> None:
    await connected(net, client, transport, "a", "b")
    net.peer.publish("a", 1)
    position = net.peer.publish("b", 2)
    await client.data("b", 1)
    await net.proxy.refuse()
    await client.state("waiting")
    net.peer.publish("a", 3)
    net.peer.requests.clear()
    await net.proxy.open()
    assert await client.data("a", 2) == [1, 3]
    if transport == "sse":
        assert net.peer.requests == [{"channels": ["a", "b"], "after": position}]
    else:
        wanted = {each["channel"]: each["after"] for each in net.peer.requests}
        assert wanted == {"a": net.peer.position(1), "b": position}
    # The gateway never says it twice; should something between do so, no handler hears of it.
    number, _, event = net.peer.log[0]
    at = net.peer.position(number)
    frame = f"id: {at}\ndata: {event}\n\n"
    net.peer.say(frame if transport == "sse" else f'{{"event":{event},"position":"{at}"}}')
    net.peer.publish("a", 4)
    assert await client.data("a", 3) == [1, 3, 4]


@both_transports
async def test_a_log_that_began_anew_is_a_gap_and_its_events_count(
    net: Network, client: Client, transport: str
) -> None:
    await connected(net, client, transport, "a")
    for number in range(3):
        net.peer.publish("a", number)
    await client.data("a", 3)
    await net.proxy.refuse()
    await client.state("waiting")
    net.peer.begin_anew()
    net.peer.publish("a", "new")
    await net.proxy.open()
    assert await client.data("a", 4) == [0, 1, 2, "new"]
    again = await client.until("subscribed", so_many(2), reason="it was again")
    assert (again[-1]["recovered"], again[-1]["resumed"]) == (False, True)


@both_transports
async def test_after_goodbye_it_waits_as_long_as_it_is_told(
    net: Network, client: Client, transport: str
) -> None:
    await connected(net, client, transport, "a")
    say_goodbye(net.peer, transport, 4003, 321)
    net.peer.close(4003)
    assert await client.until("goodbye", len, reason="it heard goodbye") == [
        {"code": 4003, "retryMs": 321}
    ]
    changes = await client.until("state", lambda said: waits(said), reason="it planned to return")
    (lost,) = (change for change in changes if change["delay"] is not None)
    assert (lost["state"], lost["delay"], lost["code"]) == ("waiting", 321, 4003)
    await client.until("subscribed", so_many(2), reason="it came back")


def say_goodbye(peer: Peer, transport: str, code: int, retry_ms: int) -> None:
    content = f'{{"code":{code},"retry_ms":{retry_ms}}}'
    event = f"retry: {retry_ms}\nevent: goodbye\ndata: {content}\n\n"
    peer.say(event if transport == "sse" else f'{{"goodbye":{content}}}')


async def test_it_comes_back_after_a_close_that_lets_it(net: Network, client: Client) -> None:
    await connected(net, client, "websocket", "a")
    codes = [1001, 1011, 4000, 4499]
    for times, code in enumerate(codes, 2):
        net.peer.close(code)
        reason = f"it came back after {code}"
        await client.until("subscribed", so_many(times), reason=reason)
    lost = [change for change in await client.said("state") if change["delay"] is not None]
    assert [change["code"] for change in lost] == codes


@both_transports
async def test_it_does_not_come_back_after_a_close_that_forbids_it(
    net: Network, client: Client, transport: str
) -> None:
    await connected(net, client, transport, "a")
    for times, code in enumerate([4500, 4502, 4999], 2):
        if transport == "sse":
            say_goodbye(net.peer, transport, code, 1)
        net.peer.close(code)
        assert (await client.state("closed"))["code"] == code
        accepted = net.proxy.accepted
        # Neither by itself, for which it had several backoffs of time, nor with the network.
        await client.page.evaluate(
            """(pause) => {
              dispatchEvent(new Event("online"));
              return new Promise((resolve) => setTimeout(resolve, pause));
            }""",
            3 * QUICK["max"],
        )
        assert net.proxy.accepted == accepted
        # But when the application says so.
        await client.connect()
        reason = "it came back"
        await client.until("subscribed", so_many(times), reason=reason)


@both_transports
async def test_a_refusal_that_passes_is_tried_again(
    net: Network, client: Client, transport: str
) -> None:
    # Chrome tells a page nothing of a failed handshake, and EventSource nothing of a status.
    busy = PlainTextResponse("busy", 503)
    net.peer.refusals += [busy, busy, busy]
    await client.open(net.url, transport=transport, backoff=QUICK)
    await client.follow("a")
    await client.connect()
    await client.until("subscribed", len, reason="it was subscribed after all")
    assert net.peer.refusals == []
    assert await client.said("refused") == []


async def test_positions_are_compared_with_all_their_digits(net: Network, client: Client) -> None:
    await client.open(net.url)
    compare = """async (pairs) => {
      const { comparePositions } = await import("/static/gateway.js");
      return pairs.map(([left, right]) => Math.sign(comparePositions(left, right)).toString());
    }"""
    big = 2**64 - 1
    pairs = [
        ("e1-5-0", "e1-5-0"),
        ("e1-5-9", "e1-5-10"),
        ("e1-10-0", "e1-9-99"),
        (f"e1-{big - 1}-{big}", f"e1-{big}-0"),
        (f"e1-1-{big}", f"e1-1-{big - 1}"),
        ("e1-1-0", "e2-1-0"),
    ]
    assert await client.page.evaluate(compare, pairs) == ["0", "-1", "1", "-1", "1", "NaN"]


async def test_a_handler_that_throws_is_reported_and_harms_nobody_else(
    net: Network, client: Client, complaints: list[str]
) -> None:
    await client.open(net.url)
    await client.page.evaluate(
        'client.subscribe("a", () => { throw new Error("my mistake"); })',
    )
    await client.follow("a")
    await client.connect()
    await client.until("subscribed", len, reason="it was subscribed")
    net.peer.publish("a", 1)
    net.peer.publish("a", 2)
    assert await client.data("a", 2) == [1, 2]
    assert sum(each.startswith("uncaught: my mistake") for each in complaints) == 2
    complaints.clear()
