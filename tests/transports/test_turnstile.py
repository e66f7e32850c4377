"""New connections in a storm: they come in a few at a time, in order, and all of them do."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import pytest

from gateway.errors import CloseCode
from gateway.transports.turnstile import AT_ONCE, Turnstile
from gateway.transports.uvicorn_http import HTTPProtocol
from gateway.transports.uvicorn_websocket import WebSocketProtocol
from tests.contract.serving import Serving, Transports, serving
from tests.contract.subscribers import KINDS, Kind
from tests.contract.talking import REQUEST, raw
from tests.servers import RunningServer, eventually

MANY = 3 * AT_ONCE + 1


@pytest.fixture
async def gateway(valkey: RunningServer) -> AsyncIterator[Serving]:
    """A gateway into which one connection comes in each turn of its event loop."""
    protocol = type("OneByOne", (HTTPProtocol,), {"turnstile": Turnstile(1)})
    transports = Transports("one by one", protocol, WebSocketProtocol)
    async with serving(valkey, transports) as running:
        yield running


async def test_a_few_come_in_each_turn_in_the_order_in_which_they_came() -> None:
    turnstile = Turnstile()
    came: list[int] = []
    for number in range(MANY):
        if turnstile.enter(lambda number=number: came.append(number)):  # type: ignore[misc]
            came.append(number)
    assert came == list(range(AT_ONCE))
    for turn in (2, 3, 4):
        await asyncio.sleep(0)
        assert came == list(range(min(turn * AT_ONCE, MANY)))
    assert turnstile.enter(lambda: None)


async def test_who_comes_later_does_not_overtake() -> None:
    turnstile = Turnstile(1)
    came: list[str] = []
    assert turnstile.enter(lambda: None)
    assert not turnstile.enter(lambda: came.append("second"))
    assert not turnstile.enter(lambda: came.append("third"))
    await asyncio.sleep(0)
    assert came == ["second"]
    assert not turnstile.enter(lambda: came.append("fourth"))
    for _ in range(2):
        await asyncio.sleep(0)
    assert came == ["second", "third", "fourth"]


@pytest.mark.parametrize("kind", KINDS, ids=lambda each: each.name)
async def test_all_who_come_in_one_moment_are_let_in_and_hear_everything(
    gateway: Serving, kind: Kind
) -> None:
    async with AsyncExitStack() as stack:
        subscribers = await asyncio.gather(
            *[stack.enter_async_context(kind.open(gateway.port, "orders")) for _ in range(50)]
        )
        for each in subscribers:
            await each.stands()
        await gateway.publish("orders", 1, 2)
        for each in subscribers:
            assert (await each.has(2)).data == [1, 2]
        gateway.shut_down()
        for each in subscribers:
            assert (await each.end()).code == CloseCode.SHUTDOWN


class Shut(Turnstile):
    """A turnstile that is shut while somebody waits before it."""

    def __init__(self) -> None:
        super().__init__()
        self.before: list[Callable[[], None]] = []

    def enter(self, come_in: Callable[[], None]) -> bool:
        self.before.append(come_in)
        return False


async def test_who_waits_when_the_gateway_stops_is_told_so_and_nobody_else_comes(
    valkey: RunningServer,
) -> None:
    turnstile = Shut()
    protocol = type("Shutting", (HTTPProtocol,), {"turnstile": turnstile})
    transports = Transports("shutting", protocol, WebSocketProtocol)
    async with serving(valkey, transports) as gateway:
        async with raw(gateway.port, REQUEST) as (reader, _):
            await eventually(lambda: turnstile.before, reason="it waits")
            turnstile.closed = True
            turnstile.before.pop()()
            said = await asyncio.wait_for(reader.read(), 30)
            assert said.startswith(b"HTTP/1.1 503 ")
            assert b"urn:push-gateway:problem:shutting-down" in said
        async with raw(gateway.port, b"") as (reader, _):
            assert await asyncio.wait_for(reader.read(), 30) == b""


async def test_who_leaves_or_sends_on_while_it_waits_changes_nothing(gateway: Serving) -> None:
    loop = asyncio.get_running_loop()
    request = REQUEST.replace(b"/ws", b"/ws?channel=orders")
    peers = [socket.create_connection(("127.0.0.1", gateway.port)) for _ in range(9)]
    try:
        for number, each in enumerate(peers):
            each.setblocking(False)
            each.sendall(request[:-2])  # the head is not whole
            if number % 3 == 0:
                each.close()
        for number, each in enumerate(peers):
            if number % 3 == 1:
                each.sendall(request[-2:])
        await eventually(
            lambda: len(gateway.gateway.hub) == 3, within=30, reason="those who stayed are in"
        )
        for number, each in enumerate(peers):
            if number % 3 == 2:
                await loop.sock_sendall(each, request[-2:])
        await eventually(
            lambda: len(gateway.gateway.hub) == 6, within=30, reason="those who came late are in"
        )
    finally:
        for each in peers:
            each.close()
