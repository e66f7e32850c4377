"""Clients of the log: how their address is read, what they never repeat, what errors become."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError, NoScriptError, RedisError, ResponseError

from gateway.broker.address import redacted
from gateway.broker.client import Clients, connect, translate, translated
from gateway.config import BrokerConfig
from gateway.errors import BrokerUnavailable, StartError
from tests.broker.fakes import fake_server
from tests.servers import (
    Broker,
    RunningServer,
    eventually,
    free_port,
    running,
    valkey_binary,
)


@asynccontextmanager
async def clients_of(url: str, *, patience: float = 5.0) -> AsyncIterator[Clients]:
    clients = Clients(url, timeout=patience)
    try:
        yield clients
    finally:
        await clients.close()


async def execute(redis: Redis, *command: str | int) -> Any:
    return await redis.execute_command(*command)  # type: ignore[no-untyped-call]


async def refusal(redis: Redis, *command: str | int) -> str:
    """Return the sentence that `command` is refused with."""
    with pytest.raises(BrokerUnavailable) as caught, translated():
        await execute(redis, *command)
    return caught.value.detail


# --- Addresses


@pytest.mark.parametrize(
    ("url", "mistake"),
    [
        ("localhost:6379", "is none of them"),
        ("http://localhost", "is none of them"),
        ("redis://", "names no host"),
        ("redis://:s3cret@", "names no host"),
        ("redis://localhost:0", "names no host"),
        ("redis://:s3cret@localhost/orders", "has a path that is not the number of a database"),
        ("redis://:s3cret@localhost?timeout=1", "has the option 'timeout'; known are db, ssl_"),
        ("redis://:s3cret@localhost?password=s3cret", "has the option 'password'; known are db"),
        ("redis://:s3cret@localhost?db=first", "has a part that cannot be read"),
        ("redis://me:s3cret/more@localhost", "has a part that cannot be read"),
        ("redis://:s3cret/more@localhost", "names no host"),
        ("redis://:s3cret#more@localhost", "has a part"),
        ("redis://[::1", "has a part that cannot be read"),
        ("unix://run/redis.sock", "has no absolute path: write unix:///path/to/socket"),
        ("unix://", "has no absolute path"),
        (
            "redis://a:1,b:2",
            "names several hosts: if they are Sentinels, write redis+sentinel://host1",
        ),
        (
            "redis://a?sentinel_password=s3cret",
            "has the option 'sentinel_password'; known are db",
        ),
        ("sentinel://a/mymaster", "is none of them"),
        ("redis+sentinel:///mymaster", "names no host"),
        ("redis+sentinel://a,,b/mymaster", "names no host"),
        ("redis+sentinel://:s3cret@a", "names no master: write redis+sentinel://host1:26379,"),
        (
            "rediss+sentinel://a,b/0/mymaster",
            "names no master: write rediss+sentinel://host1:26379,",
        ),
        ("redis+sentinel://a:b/mymaster", "has a part that cannot be read"),
        ("redis+sentinel://:s3cret/more@a/mymaster", "names no host"),
        (
            "redis+sentinel://a/mymaster?password=s3cret",
            "has the option 'password'; known are db",
        ),
        ("redis+sentinel://a/mymaster?db=s3cret", "has a part that cannot be read"),
    ],
)
def test_a_wrong_url_is_refused_without_telling_its_password(url: str, mistake: str) -> None:
    with pytest.raises(StartError) as caught:
        Clients(url, timeout=5)
    sentence = str(caught.value)
    assert sentence.startswith("expected redis://, rediss://, unix:// or redis+sentinel:// but ")
    assert mistake in sentence
    assert "s3cret" not in sentence


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://user:s3cret@host:6379/3?ssl_ca_certs=x", "redis://user@host:6379/3"),
        ("rediss://:s3cret@[::1]:6379", "rediss://[::1]:6379"),
        ("unix://user:s3cret@/run/redis.sock?db=1", "unix://user@/run/redis.sock"),
        (
            "redis+sentinel://user:s3cret@a:26379,[::1],b:1/mymaster?sentinel_password=s3cret",
            "redis+sentinel://user@a:26379,[::1],b:1/mymaster",
        ),
        ("redis+sentinel://a,b/mymaster?sentinel_password=s3c@ret", "the configured URL"),
        ("redis+sentinel://a:s3cret,b/mymaster", "the configured URL"),
        ("redis://:s3cret/x@host", "the configured URL"),
        ("redis://:12345/x@host", "the configured URL"),
        ("redis://me:12345/x@host", "the configured URL"),
        ("redis://me:12345?x@host", "the configured URL"),
        ("redis://me:12345#x@host", "the configured URL"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert redacted(url) == shown


async def test_the_number_of_the_database_is_heeded(valkey: RunningServer) -> None:
    async with clients_of(f"{valkey.url}?db=3") as third, clients_of(valkey.url) as first:
        await third.commands.set("only-in-the-third", "1", px=5000)
        assert await first.commands.get("only-in-the-third") is None


# --- What is sent, and how often


async def test_every_supported_server_answers_both_kinds_of_client(any_broker: Broker) -> None:
    clients = any_broker.clients
    entry = await clients.commands.xadd("stream", {"field": b"\xff"})
    answer = await clients.blocking().xread({"stream": "0"}, block=100)
    assert answer == {b"stream": [[(entry, {b"field": b"\xff"})]]}


async def test_a_write_that_may_have_been_carried_out_is_not_sent_again() -> None:
    async with fake_server({"XADD": None}) as fake, clients_of(fake.url) as clients:
        assert await refusal(clients.commands, "XADD", "s", "*", "a", "b") == (
            "the broker cannot be reached"
        )
        assert fake.count("XADD") == 1


async def test_a_pipeline_that_may_have_been_carried_out_is_not_sent_again() -> None:
    async with fake_server({"EVALSHA": None}) as fake, clients_of(fake.url) as clients:
        pipeline = clients.commands.pipeline(transaction=False)
        pipeline.execute_command("EVALSHA", "0" * 40, 0)
        with pytest.raises(BrokerUnavailable), translated():
            await pipeline.execute()
        assert fake.count("EVALSHA") == 1


async def test_the_call_after_a_lost_connection_succeeds() -> None:
    port = free_port()
    with running(valkey_binary(), "--port", str(port)) as server:
        for url in (server.url, f"redis://127.0.0.1:{port}"):
            async with clients_of(url) as clients, clients_of(server.url) as other:
                first = await clients.commands.client_id()
                await execute(other.commands, "CLIENT", "KILL", "ID", first)
                assert await clients.commands.client_id() != first


async def test_no_answer_counts_as_failed_after_the_timeout() -> None:
    with running(valkey_binary()) as server:
        async with clients_of(server.url, patience=0.2) as clients:
            assert await clients.commands.ping()
            os.kill(server.process.pid, signal.SIGSTOP)
            assert await refusal(clients.commands, "PING") == "the broker did not answer in time"
            os.kill(server.process.pid, signal.SIGCONT)
            assert await clients.commands.ping()


async def test_a_read_may_block_for_longer_than_the_timeout(broker: Broker) -> None:
    async with clients_of(broker.server.url, patience=0.5) as clients:
        blocking = clients.blocking(longest=0.8)
        assert not await blocking.xread({"stream": "0"}, block=800)


async def test_a_blocking_read_finds_out_that_the_server_is_dead() -> None:
    with running(valkey_binary()) as server:
        async with clients_of(server.url, patience=0.2) as clients:
            blocking = clients.blocking(longest=0.2)
            assert await blocking.ping()
            os.kill(server.process.pid, signal.SIGSTOP)
            sentence = await refusal(blocking, "XREAD", "BLOCK", 200, "STREAMS", "stream", "0")
            assert sentence == "the broker did not answer in time"


async def test_a_blocking_read_ends_when_the_server_does() -> None:
    with running(valkey_binary()) as server:
        async with clients_of(server.url) as clients:
            command = ("XREAD", "BLOCK", 5000, "STREAMS", "stream", "0")
            read = asyncio.create_task(refusal(clients.blocking(), *command))

            async def is_blocked() -> bool:
                return bool((await clients.commands.info("clients"))["blocked_clients"])

            await eventually(is_blocked, reason="the read blocked")
            server.process.kill()
            assert await read == "the broker cannot be reached"


async def test_the_server_is_told_what_each_connection_is_for(broker: Broker) -> None:
    await broker.clients.blocking().ping()
    names = {each["name"] for each in await broker.clients.commands.client_list()}
    assert {"gateway-commands", "gateway-reads"} <= names


async def test_calls_beyond_the_limit_of_connections_wait_their_turn(broker: Broker) -> None:
    answers = await asyncio.gather(*(broker.clients.commands.ping() for _ in range(500)))
    assert all(answers)
    assert len(await broker.clients.commands.client_list()) <= 65


async def test_clients_can_be_closed_twice(broker: Broker) -> None:
    clients = await connect(broker.config)
    await clients.close()
    await clients.close()


async def test_calls_that_are_under_way_when_their_client_is_closed_are_refused(
    broker: Broker,
) -> None:
    """Closed in every turn of the event loop from the opening of the connection to the answer."""
    for turns in range(100):
        async with clients_of(broker.clients.url) as clients:
            calls = [asyncio.ensure_future(ping(clients.commands)) for _ in range(2)]
            for _ in range(turns):
                await asyncio.sleep(0)
            await clients.close()
            for outcome in await asyncio.gather(*calls, return_exceptions=True):
                assert outcome == "PONG" or isinstance(outcome, BrokerUnavailable), outcome


async def ping(redis: Redis) -> str:
    with translated():
        return str(await execute(redis, "ECHO", "PONG"), "ascii")


async def test_a_configuration_without_url_needs_an_embedded_server() -> None:
    with pytest.raises(StartError, match="because no embedded server was started"):
        await connect(BrokerConfig())


# --- What errors become


async def test_a_full_memory_is_told() -> None:
    with running(valkey_binary(), "--maxmemory", "1") as server:
        async with clients_of(server.url) as clients:
            redis = clients.commands
            full = "the broker has no memory left"
            assert await refusal(redis, "SET", "key", "1") == full
            script = "return redis.call('SET', KEYS[1], '1')"
            assert await refusal(redis, "EVAL", script, 1, "key") == full
            pipeline = redis.pipeline(transaction=False)
            pipeline.set("key", "1")
            (answer,) = await pipeline.execute(raise_on_error=False)
            assert str(translate(answer)) == full


async def test_a_server_that_became_a_replica_is_told() -> None:
    with running(valkey_binary()) as server:
        async with clients_of(server.url) as clients:
            await clients.commands.replicaof("127.0.0.1", str(free_port()))
            assert await refusal(clients.commands, "SET", "key", "1") == (
                "the broker is a replica and takes no writes"
            )


async def test_a_long_script_is_told() -> None:
    with running(valkey_binary(), "--busy-reply-threshold", "10") as server:
        async with clients_of(server.url) as clients:
            endless = asyncio.create_task(execute(clients.commands, "EVAL", "while true do end", 0))

            async def is_busy() -> bool:
                try:
                    with translated():
                        await clients.commands.get("key")
                except BrokerUnavailable as error:
                    return str(error) == "the broker is busy with a long script"
                return False

            await eventually(is_busy, reason="the server was busy")
            await clients.commands.script_kill()
            with pytest.raises(ResponseError, match="killed"):
                await endless


@pytest.mark.parametrize("allowed", [("+get",), ("+get", "+client")])
async def test_missing_rights_are_told(broker: Broker, allowed: tuple[str, ...]) -> None:
    redis = broker.clients.commands
    await execute(redis, "ACL", "SETUSER", "reader", "reset", "on", "nopass", "~*", *allowed)
    try:
        url = broker.server.url.replace("unix://", "unix://reader:any@")
        async with clients_of(url) as clients:
            assert await refusal(clients.commands, "SET", "key", "1") == (
                "the broker does not allow the gateway what it needs"
            )
    finally:
        await execute(redis, "ACL", "DELUSER", "reader")


async def test_mistakes_of_the_caller_stay_what_they_are(broker: Broker) -> None:
    await broker.clients.commands.set("text", "1")
    with pytest.raises(ResponseError, match="WRONGTYPE"), translated():
        await broker.clients.commands.xadd("text", {"a": "b"})
    with pytest.raises(NoScriptError), translated():
        await broker.clients.commands.evalsha("0" * 40, 0)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ConnectionError("Error 111"), "the broker cannot be reached"),
        (ConnectionResetError(), "the broker cannot be reached"),
        (ResponseError("MISCONF Errors writing"), "the broker cannot write to its disk"),
        (ResponseError("NOREPLICAS Not enough"), "the broker has too few replicas to take writes"),
        (ResponseError("UNBLOCKED force unblock"), "the broker became a replica"),
        (
            ResponseError("Command # 1 (SET a b) of pipeline caused error: MISCONF Errors"),
            "the broker cannot write to its disk",
        ),
    ],
)
def test_the_state_of_the_broker_has_a_sentence(error: Exception, sentence: str) -> None:
    translation = translate(error)
    assert isinstance(translation, BrokerUnavailable)
    assert translation.detail == sentence


def test_data_that_reads_like_an_error_is_none() -> None:
    error = ResponseError("Command # 1 (SET a MISCONF) of pipeline caused error: WRONGTYPE it is")
    assert translate(error) is error


def test_a_translation_keeps_its_cause() -> None:
    with pytest.raises(BrokerUnavailable) as caught, translated():
        raise ConnectionError("Error 111 connecting to host")
    assert isinstance(caught.value.__cause__, RedisError)
