"""Sentinels: which of them is believed, and what becomes of connections when the master moves."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from gateway.broker.client import Clients, connect, opened, translated
from gateway.broker.sentinel import NoMaster, Sentinels
from gateway.config import BrokerConfig
from gateway.errors import BrokerUnavailable, StartError
from gateway.settings import Seconds
from tests.broker.fakes import bulk, fake_server, listening
from tests.sentinels import MASTER, replicated, sentinel
from tests.servers import eventually, free_port, redis7_binary, running, valkey_binary

UNKNOWN = b"-ERR No such master with that name\r\n"


def at(port: int, *, epoch: int) -> bytes:
    """What a Sentinel answers: the master is at this port, since the failover of that number."""
    said = {"ip": "127.0.0.1", "port": str(port), "config-epoch": str(epoch), "flags": "master"}
    return b"%%%d\r\n" % len(said) + b"".join(bulk(each) for pair in said.items() for each in pair)


class Told:
    """Sentinels that answer as they are told."""

    def __init__(self, count: int) -> None:
        self.replies: list[dict[str, bytes | None]] = [{} for _ in range(count)]
        self.url = ""
        self.sentinels: Sentinels

    def tell(self, *answers: bytes) -> None:
        for replies, answer in zip(self.replies, answers, strict=True):
            replies["SENTINEL"] = answer

    async def port(self) -> int:
        """Return the port at which the master is found."""
        return (await self.sentinels.locate()).port


@asynccontextmanager
async def clients_at(url: str) -> AsyncIterator[Clients]:
    clients = Clients(url, timeout=5)
    try:
        yield clients
    finally:
        await clients.close()


@asynccontextmanager
async def told(*answers: bytes, further: str = "") -> AsyncIterator[Told]:
    """Run Sentinels that answer so; the URL names a `further` one before them."""
    told = Told(len(answers))
    told.tell(*answers)
    async with AsyncExitStack() as stack:
        fakes = [await stack.enter_async_context(fake_server(each)) for each in told.replies]
        hosts = ",".join([further] * bool(further) + [each.url[8:] for each in fakes])
        told.url = f"redis+sentinel://{hosts}/{MASTER}"
        clients = await stack.enter_async_context(clients_at(told.url))
        assert clients.sentinels
        told.sentinels = clients.sentinels
        yield told


# --- Who is believed


async def test_one_that_is_away_and_one_that_knows_nothing_do_not_matter() -> None:
    async with told(UNKNOWN, at(1, epoch=0), further=f"127.0.0.1:{free_port()}") as they:
        assert await they.port() == 1


async def test_one_that_is_silent_is_not_waited_for() -> None:
    async def be_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with (
        listening(be_silent) as port,
        told(at(1, epoch=0), further=f"127.0.0.1:{port}") as they,
    ):
        begin = time.monotonic()
        assert await they.port() == 1
        assert time.monotonic() - begin < 4  # seconds; the timeout is 5


async def test_a_newer_failover_is_believed_and_an_older_one_is_not() -> None:
    async with told(at(1, epoch=3), at(1, epoch=3)) as they:
        assert await they.port() == 1
        they.tell(at(1, epoch=3), at(2, epoch=4))
        assert (await they.sentinels.locate(thorough=True)).port == 2
        for _ in range(20):
            assert await they.port() == 2


async def test_sentinels_that_were_all_set_up_anew_are_believed() -> None:
    async with told(at(1, epoch=7), at(1, epoch=7)) as they:
        assert await they.port() == 1
        they.tell(at(2, epoch=0), at(2, epoch=0))
        assert await they.port() == 2


async def test_while_no_sentinel_answers_what_was_told_stands() -> None:
    async with told(at(1, epoch=7)) as they:
        assert await they.port() == 1
        they.tell(b"-ERR out of order\r\n")
        assert await they.port() == 1


async def test_a_master_that_no_sentinel_knows() -> None:
    async with told(UNKNOWN) as they:
        with pytest.raises(NoMaster):
            await they.port()
        with pytest.raises(BrokerUnavailable, match="Sentinels know no master"), translated():
            await they.port()


# --- The master moves


async def test_calls_and_blocked_reads_leave_a_master_that_fell_silent_for_its_replica() -> None:
    """It keeps its connections: whoever hears of the new master closes them."""
    async with replicated(valkey_binary()) as servers:
        config = BrokerConfig(url=servers.url, timeout=Seconds(30))
        async with opened(config) as clients:
            before = await clients.commands.config_get("port")
            read = asyncio.create_task(blocked(clients))
            await eventually(lambda: is_blocked(clients), reason="the read was blocked")
            os.kill(servers.master.process.pid, signal.SIGSTOP)
            assert await asyncio.wait_for(read, 20) == "the broker cannot be reached"

            async def answers() -> bool:
                try:
                    with translated():
                        await clients.commands.set("key", "value", px=1000)
                except BrokerUnavailable:
                    return False
                return True

            await eventually(answers, within=20, reason="the replica took over")
            assert await clients.commands.config_get("port") != before


async def blocked(clients: Clients) -> str:
    with pytest.raises(BrokerUnavailable) as caught, translated():
        await clients.blocking(longest=30).xread({"stream": "0"}, block=30_000)
    return str(caught.value)


async def is_blocked(clients: Clients) -> bool:
    return bool((await clients.commands.info("clients"))["blocked_clients"])


async def test_a_replica_that_was_taken_for_the_master_is_left_at_once() -> None:
    with running(valkey_binary(), "--port", str(port := free_port())) as server:
        async with told(at(port, epoch=0)) as they, clients_at(they.url) as clients:
            assert await clients.commands.set("key", "1")
            first = await clients.commands.client_id()
            async with clients_at(server.url) as others:
                await others.commands.replicaof("127.0.0.1", str(free_port()))
                with pytest.raises(BrokerUnavailable, match="is a replica"), translated():
                    await clients.commands.set("key", "1")
                await others.commands.replicaof("NO", "ONE")
            assert await clients.commands.client_id() != first


# --- The start


async def refusal(url: str) -> str:
    """Return why nothing can be started with `url`, without the part that all refusals share."""
    with pytest.raises(StartError) as caught:
        await connect(BrokerConfig(url=url))
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert "s3cret" not in sentence
    wanted = "expected a writable Redis 7.0 or newer, or Valkey, at "
    assert sentence.startswith(wanted)
    return sentence.removeprefix(wanted)


async def test_a_start_without_master_says_why_in_one_sentence() -> None:
    port, away = free_port(), free_port()
    with (
        running(valkey_binary(), "--port", str(port)) as server,
        sentinel(valkey_binary(), port) as its,
    ):
        url = f"redis+sentinel://127.0.0.1:{its}/{MASTER}"
        await eventually(lambda: starts(url), within=30, reason="the Sentinel answered")
        assert await refusal(f"redis+sentinel://:s3cret@127.0.0.1:{its}/other") == (
            f"redis+sentinel://127.0.0.1:{its}/other "
            "but the Sentinels there watch no master named 'other'"
        )
        lost = f"redis+sentinel://127.0.0.1:{away},127.0.0.1:{away}/{MASTER}"
        assert await refusal(lost) == (
            f"{lost} but no Sentinel there can be asked: it cannot be reached: Connection refused"
        )
        plain = f"redis+sentinel://127.0.0.1:{port}/{MASTER}"
        assert await refusal(plain) == f"{plain} but what answers there is no Sentinel"
        server.process.kill()
        assert await refusal(url) == (
            f"{url}, where the master is 127.0.0.1:{port}, "
            "but it cannot be reached: Connection refused"
        )


async def starts(url: str) -> bool:
    try:
        await (await connect(BrokerConfig(url=url))).close()
    except StartError:
        return False
    return True


async def test_sentinels_and_server_have_passwords_of_their_own() -> None:
    port, locked = free_port(), ("requirepass guarded", f"sentinel auth-pass {MASTER} s3cret")
    with (
        running(valkey_binary(), "--port", str(port), "--requirepass", "s3cret"),
        sentinel(valkey_binary(), port, 1, *locked) as its,
    ):
        url = f"redis+sentinel://:s3cret@127.0.0.1:{its}/{MASTER}"
        right = f"{url}?sentinel_password=guarded"
        await eventually(lambda: starts(right), within=30, reason="the Sentinel answered")
        hint = "can be asked: {}; give it as sentinel_password"
        assert hint.format("it asks for a password and the URL has none") in await refusal(url)
        assert hint.format("the user name or the password in the URL is wrong") in (
            await refusal(f"{url}?sentinel_password=s3cret")
        )


@pytest.mark.redis
async def test_tls_to_sentinels_and_server(certificate: tuple[Path, Path]) -> None:
    port, own = free_port(), free_port()
    key, known = map(str, certificate)
    tls = {"key-file": key, "cert-file": known, "ca-cert-file": known, "auth-clients": "no"}
    options = [part for name, value in tls.items() for part in (f"--tls-{name}", value)]
    lines = [f"tls-{name} {value}" for name, value in tls.items()]
    lines += [f"tls-port {own}", "port 0", "tls-replication yes"]
    with (
        running(redis7_binary(), "--tls-port", str(port), *options),
        sentinel(redis7_binary(), port, 1, *lines),
    ):
        url = f"rediss+sentinel://127.0.0.1:{own}/{MASTER}"
        trusting = f"{url}?ssl_ca_certs={known}"
        await eventually(lambda: starts(trusting), within=30, reason="the Sentinel answered")
        assert await refusal(url) == (
            f"{url} but no Sentinel there can be asked: "
            "its certificate is not accepted: self-signed certificate"
        )
