"""The client over real sockets, against a gateway that is cut off and that lies."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import pytest
from starlette.responses import JSONResponse, PlainTextResponse
from websockets.frames import Close, Frame, Opcode
from websockets.utils import accept_key

from gateway.client import Backoff, Disconnected, Notice, Positions, Refused, Subscribed, subscribe
from tests.client.peer import Network, network
from tests.servers import eventually


@pytest.fixture(params=[False, True], ids=["websocket", "sse"])
def sse(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
async def net() -> AsyncIterator[Network]:
    async with network() as net:
        yield net


class Reader:
    """Follows channels in a task, and keeps what it was given."""

    def __init__(self, net: Network, *channels: str, sse: bool, **options: Any) -> None:
        self.net = net
        self.positions = Positions(channels, options.pop("after", None))
        self.seen: list[tuple[str, object]] = []
        self.notices: list[Notice] = []
        self._options = {"sse": sse, "backoff": Backoff(first=0.01, longest=0.05), **options}
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        events = subscribe(
            self.net.url, self.positions, notice=self.notices.append, **self._options
        )
        async with aclosing(events):
            async for event in events:
                self.seen.append((event.channel, event.data))

    async def until(self, predicate: Callable[[], bool], *, reason: str) -> None:
        """Wait until it is so. Raises what the reader raises."""
        await eventually(lambda: self.task.done() or predicate(), reason=reason)
        if self.task.done():
            self.task.result()

    async def subscribed(self, times: int = 1) -> None:
        """Wait until there were so many replies to subscriptions."""
        await self.until(
            lambda: sum(isinstance(each, Subscribed) for each in self.notices) >= times,
            reason=f"{times} subscriptions were made",
        )

    async def saw(self, *data: object) -> None:
        """Wait until the data that was seen is this, and nothing else."""
        await self.until(lambda: len(self.seen) >= len(data), reason=f"{data} came")
        assert [value for _, value in self.seen] == list(data)

    async def __aenter__(self) -> "Reader":
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])


async def test_live_events_arrive_with_their_channel_and_position(net: Network, sse: bool) -> None:
    net.peer.publish("orders", "before")
    async with Reader(net, "orders", "orders:c-19", sse=sse) as reader:
        await reader.subscribed(2)
        net.peer.publish("orders", 1)
        net.peer.publish("other", "not ours")
        last = net.peer.publish("orders:c-19", 2)
        await reader.saw(1, 2)
        assert reader.seen == [("orders", 1), ("orders:c-19", 2)]
        assert reader.positions.known()["orders:c-19"] == last


async def test_earliest_replays_all_that_is_kept(net: Network, sse: bool) -> None:
    for number in range(3):
        net.peer.publish("orders", number)
    async with Reader(net, "orders", sse=sse, after="earliest") as reader:
        await reader.saw(0, 1, 2)


async def test_a_lost_connection_is_resumed_without_loss_or_repetition(
    net: Network, sse: bool
) -> None:
    async with Reader(net, "a", "b", sse=sse) as reader:
        await reader.subscribed(2)
        expected: list[object] = []
        for number in range(1, 6):
            net.peer.publish("a", number)
            expected.append(number)
            await reader.saw(*expected)
            net.proxy.cut()
            net.peer.publish("b", -number)
            expected.append(-number)
            await reader.saw(*expected)
    assert all(each.recovered for each in reader.notices if isinstance(each, Subscribed))


async def test_it_comes_back_to_a_gateway_that_was_away(net: Network, sse: bool) -> None:
    async with Reader(net, "orders", sse=sse) as reader:
        await reader.subscribed()
        net.peer.publish("orders", 1)
        await reader.saw(1)
        await net.proxy.refuse()

        def refused() -> bool:
            return any("connection refused" in getattr(n, "reason", "") for n in reader.notices)

        await reader.until(refused, reason="a connection was refused")
        net.peer.publish("orders", 2)
        await net.proxy.open()
        await reader.saw(1, 2)


async def test_each_channel_of_a_websocket_resumes_after_its_own_position(net: Network) -> None:
    async with Reader(net, "busy", "quiet", sse=False) as reader:
        await reader.subscribed(2)
        quiet = net.peer.publish("quiet", 1)
        busy = net.peer.publish("busy", 2)
        await reader.saw(1, 2)
        net.proxy.cut()
        await reader.subscribed(4)
        asked = {each["channel"]: each["after"] for each in net.peer.requests[2:]}
        assert asked == {"busy": busy, "quiet": quiet}


async def test_a_heartbeat_moves_every_subscribed_channel(net: Network, sse: bool) -> None:
    async with Reader(net, "a", "b", sse=sse) as reader:
        await reader.subscribed(2)
        net.peer.say(": heartbeat\nid: e1-77-0\n\n" if sse else '{"position":"e1-77-0"}')
        await eventually(
            lambda: reader.positions.known() == {"a": "e1-77-0", "b": "e1-77-0"},
            reason="both channels moved",
        )


async def test_an_event_that_is_sent_twice_is_given_out_once(net: Network, sse: bool) -> None:
    async with Reader(net, "orders", sse=sse, after="earliest") as reader:
        await reader.subscribed()
        net.peer.publish("orders", 1)
        net.peer.publish("orders", 2)
        for listener in net.peer.listeners:
            for number, _, event in net.peer.log:
                listener.put(event, net.peer.position(number))
        net.peer.publish("orders", 3)
        await reader.saw(1, 2, 3)


async def test_lost_events_are_reported_and_what_is_kept_is_replayed(
    net: Network, sse: bool
) -> None:
    async with Reader(net, "orders", sse=sse) as reader:
        await reader.subscribed()
        net.peer.publish("orders", 1)
        await reader.saw(1)
        await net.proxy.refuse()
        for number in (2, 3, 4):
            net.peer.publish("orders", number)
        net.peer.trim("orders", 3)
        await net.proxy.open()
        await reader.saw(1, 4)
        assert Subscribed("orders", "e1-1-0", recovered=False) in reader.notices


async def test_a_log_of_another_epoch_is_read_from_its_beginning(net: Network, sse: bool) -> None:
    async with Reader(net, "orders", sse=sse, after="e1-500-0") as reader:
        await reader.subscribed()
        net.peer.begin_anew()
        net.peer.publish("orders", "new")
        net.proxy.cut()
        await eventually(lambda: ("orders", "new") in reader.seen, reason="the new log was read")
        assert Subscribed("orders", "e2-0-0", recovered=False) in reader.notices
        assert reader.positions.known() == {"orders": "e2-1-0"}


async def test_a_goodbye_says_when_to_come_back(net: Network, sse: bool) -> None:
    async with Reader(net, "orders", sse=sse) as reader:
        await reader.subscribed()
        data = '{"code":4000,"retry_ms":120}'
        net.peer.say(
            f"retry: 120\nevent: goodbye\ndata: {data}\n\n" if sse else f'{{"goodbye":{data}}}'
        )
        net.peer.close(4000, "bye")
        await reader.subscribed(2)
        (interruption,) = [each for each in reader.notices if isinstance(each, Disconnected)]
        assert interruption.retry_in == 0.12


@pytest.mark.parametrize("code", [1001, 1011, 4001, 4002, 4003, 4499])
async def test_codes_below_4500_are_resumed(net: Network, code: int) -> None:
    async with Reader(net, "orders", sse=False) as reader:
        await reader.subscribed()
        net.peer.close(code)
        await reader.subscribed(2)
        net.peer.publish("orders", 1)
        await reader.saw(1)


@pytest.mark.parametrize("code", [4500, 4501, 4502, 4999])
async def test_codes_from_4500_on_are_final(net: Network, code: int) -> None:
    async with Reader(net, "orders", sse=False) as reader:
        await reader.subscribed()
        net.peer.close(code, "no way")
        with pytest.raises(Refused, match=f"closed with {code}: no way"):
            await asyncio.wait_for(reader.task, 30)


async def test_a_final_goodbye_on_an_event_stream_is_final(net: Network) -> None:
    async with Reader(net, "orders", sse=True) as reader:
        await reader.subscribed()
        net.peer.say('event: goodbye\ndata: {"code":4502}\n\n')
        with pytest.raises(Refused, match="closed with 4502"):
            await asyncio.wait_for(reader.task, 30)


async def test_a_refused_subscription_is_final(net: Network) -> None:
    error = '{"code":"unknown-channel","status":404,"detail":"no channel matches"}'
    net.peer.greetings.append(f'{{"id":1,"error":{error}}}')
    async with Reader(net, "nothing", sse=False) as reader:
        with pytest.raises(Refused, match=r"no channel matches \(unknown-channel\)"):
            await asyncio.wait_for(reader.task, 30)


async def test_the_reason_is_told_also_when_the_close_came_before_anything_was_asked() -> None:
    error = '{"id":null,"error":{"code":"invalid-token","status":401,"detail":"it has expired"}}'

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        (key,) = re.findall(r"(?i)\nSec-WebSocket-Key: (\S+)", head)
        close = Close(4501, "").serialize()
        frames = Frame(Opcode.TEXT, error.encode()), Frame(Opcode.CLOSE, close)
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: %b\r\n\r\n"
            % accept_key(key).encode()
            + b"".join(frame.serialize(mask=False) for frame in frames)
        )
        await reader.read()
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(Refused, match=r"it has expired \(invalid-token\)"):
            async for _ in subscribe(f"http://127.0.0.1:{port}", ["orders"], token="t"):
                pass


async def test_an_error_that_may_pass_is_tried_again(net: Network) -> None:
    error = '{"code":"broker-unavailable","status":503,"detail":"down"}'
    net.peer.greetings.append(f'{{"id":1,"error":{error}}}')
    async with Reader(net, "orders", sse=False) as reader:
        await eventually(lambda: len(reader.notices) > 2, reason="it tried again")
        net.peer.greetings.clear()
        await reader.subscribed()


async def test_a_refusal_over_http_is_final_and_says_why(net: Network, sse: bool) -> None:
    problem = {"title": "Not allowed", "detail": "orders is not yours", "code": "forbidden"}
    net.peer.refusals.append(JSONResponse(problem, 403))
    async with Reader(net, "orders", sse=sse) as reader:
        with pytest.raises(Refused, match=r"Not allowed: orders is not yours \(forbidden\)"):
            await asyncio.wait_for(reader.task, 30)


async def test_an_unavailable_gateway_is_asked_again_when_it_says(net: Network, sse: bool) -> None:
    problem = {"title": "The broker is not available", "code": "broker-unavailable"}
    net.peer.refusals.append(JSONResponse(problem, 503, headers={"Retry-After": "0"}))
    async with Reader(net, "orders", sse=sse) as reader:
        await reader.subscribed()
        interruption = reader.notices[0]
        assert isinstance(interruption, Disconnected)
        assert interruption.retry_in == 0
        assert interruption.reason == "The broker is not available (broker-unavailable)"


async def test_a_web_server_that_is_no_gateway_is_refused(net: Network) -> None:
    net.peer.refusals.append(PlainTextResponse("welcome"))
    async with Reader(net, "orders", sse=True) as reader:
        with pytest.raises(Refused, match=r"expected an event stream from .* but got text/plain"):
            await asyncio.wait_for(reader.task, 30)


async def test_frames_that_are_not_known_are_passed_over(net: Network, sse: bool) -> None:
    async with Reader(net, "orders", sse=sse) as reader:
        await reader.subscribed()
        net.peer.say("event: presence\ndata: 3\n\n" if sse else '{"presence":{"count":3}}')
        net.peer.publish("orders", 1)
        await reader.saw(1)


async def test_the_token_is_shown_as_a_bearer(net: Network, sse: bool) -> None:
    async with Reader(net, "orders", sse=sse, token="s3cret") as reader:
        await reader.subscribed()
    assert net.peer.authorizations == ["Bearer s3cret"]


async def test_closing_the_iterator_closes_the_connection(net: Network, sse: bool) -> None:
    async with Reader(net, "orders", sse=sse) as reader:
        await reader.subscribed()
        assert len(net.peer.listeners) == 1
    await eventually(lambda: not net.peer.listeners, reason="the connection was closed")


@pytest.mark.parametrize("url", ["", "orders", "ftp://host/", "http://"])
async def test_an_address_that_is_none_is_said_to_be_none(url: str, sse: bool) -> None:
    with pytest.raises(ValueError, match="expected a URL like"):
        await anext(subscribe(url, ["orders"], sse=sse))
