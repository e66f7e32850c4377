"""The connection that is kept: what it answers, and how it comes back."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
from hiredis import Reader
from redis.exceptions import BusyLoadingError, ConnectionError, InvalidResponse, ResponseError
from redis.exceptions import TimeoutError as SilentServer

from gateway.broker.client import Clients
from gateway.broker.line import Line
from tests.servers import Broker, eventually, running, valkey_binary

BLOCKED = ("XREAD", "BLOCK", 5000, "STREAMS", "s", "$")
"""A read of a stream to which nothing is added."""


async def is_blocked(clients: Clients) -> bool:
    return bool((await clients.commands.info("clients"))["blocked_clients"])


async def blocked(line: Line, clients: Clients) -> asyncio.Task[object]:
    """Return a call that waits at the server."""
    task = asyncio.create_task(line.call(*BLOCKED))
    await eventually(lambda: is_blocked(clients), reason="the read blocked")
    return task


async def test_answers_are_bytes_and_come_for_each_command_in_turn(any_broker: Broker) -> None:
    clients = any_broker.clients
    await clients.commands.xadd("s", {"c": "orders", "e": b"\x00\xff"}, id="1-1")
    line = Line(clients.blocking())
    for _ in range(2):
        answer = await line.call("XREAD", "STREAMS", "s", "0")
        assert answer == {b"s": [[b"1-1", [b"c", b"orders", b"e", b"\x00\xff"]]]}
        assert await line.call("XREAD", "BLOCK", 1, "STREAMS", "s", "1-1") is None


async def test_a_refused_command_leaves_the_connection_as_it_was(broker: Broker) -> None:
    line = Line(broker.clients.blocking())
    with pytest.raises(ResponseError, match="NOGROUP"):
        await line.call("XREADGROUP", "GROUP", "g", "c", "STREAMS", "s", ">")
    assert await line.call("ECHO", "here") == b"here"


async def test_a_call_after_a_cancelled_one_gets_an_answer_of_its_own(broker: Broker) -> None:
    line = Line(broker.clients.blocking())
    waiting = await blocked(line, broker.clients)
    waiting.cancel()
    await asyncio.wait([waiting])
    await broker.clients.commands.xadd("s", {"e": "too late"})
    assert await line.call("ECHO", "mine") == b"mine"


async def test_a_call_whose_connection_is_cut_fails_and_the_next_opens_another(
    broker: Broker,
) -> None:
    line = Line(broker.clients.blocking())
    waiting = await blocked(line, broker.clients)
    await broker.clients.commands.client_kill_filter(_type="normal", skipme=True)
    with pytest.raises(ConnectionError):
        await waiting
    assert await line.call("ECHO", "again") == b"again"


async def test_a_connection_that_was_cut_between_two_calls_is_opened_again(broker: Broker) -> None:
    line = Line(broker.clients.blocking())
    first = await line.call("CLIENT", "ID")
    await broker.clients.commands.client_kill_filter(_id=first)
    assert await line.call("CLIENT", "ID") != first


async def test_commands_are_answered_in_order_and_a_refusal_stands_for_itself(
    broker: Broker,
) -> None:
    line = Line(broker.clients.commands)
    first, refused, last = await line.ask([("ECHO", "é"), ("GET",), ("ECHO", b"\xff")])
    assert (first, last) == ("é".encode(), b"\xff")
    assert isinstance(refused, ResponseError)
    assert await line.ask([]) == []


async def test_many_commands_may_together_take_longer_than_one_may() -> None:
    with running(valkey_binary()) as server:
        clients = Clients(server.url, timeout=0.5)
        line = Line(clients.commands)
        started = time.monotonic()
        answers = await line.ask([("BLPOP", "nothing", "0.3")] * 3)
        assert answers == [None] * 3
        assert time.monotonic() - started >= 0.9
        await clients.close()


async def test_a_silent_server_is_given_up_and_asked_again_later() -> None:
    with running(valkey_binary()) as server:
        clients = Clients(server.url, timeout=0.2)
        line = Line(clients.blocking(longest=0.1))
        assert await line.call("ECHO", "first") == b"first"
        os.kill(server.process.pid, signal.SIGSTOP)
        try:
            with pytest.raises(SilentServer):
                await line.call("ECHO", "lost")
        finally:
            os.kill(server.process.pid, signal.SIGCONT)
        assert await line.call("ECHO", "again") == b"again"
        await clients.close()


async def answer(
    answers: dict[bytes, bytes], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Be a server that gives these answers, and greets as every server does."""
    commands = Reader()
    while data := await reader.read(4096):
        commands.feed(data)
        while (command := commands.gets()) is not False:
            greeting = b"%1\r\n+proto\r\n:3\r\n" if command[0] == b"HELLO" else b"+OK\r\n"
            writer.write(answers.get(command[0], greeting))
    writer.close()


@asynccontextmanager
async def line_to(answers: dict[bytes, bytes]) -> AsyncIterator[Line]:
    server = await asyncio.start_server(partial(answer, answers), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    clients = Clients(f"redis://127.0.0.1:{port}", timeout=5)
    async with server:
        yield Line(clients.commands)
        await clients.close()


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (b"no protocol at all\r\n", InvalidResponse),
        (b"-LOADING Redis is loading the dataset in memory\r\n", BusyLoadingError),
        (b"-ERR max number of clients reached\r\n", ConnectionError),
    ],
)
async def test_after_what_is_no_answer_the_connection_is_another(
    said: bytes, expected: type[Exception]
) -> None:
    async with line_to({b"GET": said}) as line:
        for _ in range(2):
            with pytest.raises(expected):
                await line.call("GET", "k")
            assert await line.call("ECHO", "more") == b"OK"


async def test_what_nobody_asked_for_is_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    answers = {
        b"GET": b">2\r\n+invalidate\r\n_\r\n+mine\r\n",
        b"SET": b"+OK\r\n+and more\r\n",
    }
    async with line_to(answers) as line:
        assert await line.call("GET", "k") == b"mine"
        assert await line.call("SET", "k", "v") == b"OK"
        assert await line.call("GET", "k") == b"mine"
    assert not caplog.records


async def test_a_replica_is_asked_once(caplog: pytest.LogCaptureFixture) -> None:
    async with line_to({b"SET": b"-READONLY You can't write against a replica.\r\n"}) as line:
        assert await line.call("ECHO", "here") == b"OK"
        wire = line._wire
        with pytest.raises(ResponseError):
            await line.call("SET", "k", "v")
        assert await line.call("ECHO", "here") == b"OK"
        assert line._wire is not wire
