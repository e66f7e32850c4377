"""What a server must be to hold the log, and the sentence for each one that is not."""

import asyncio
import logging
import os
import secrets
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.broker.client import connect
from gateway.config import BrokerConfig
from gateway.errors import StartError
from gateway.settings import Seconds
from tests.broker.fakes import bulk, fake_server, listening
from tests.servers import (
    RunningServer,
    eventually,
    free_port,
    redis7_binary,
    running,
    valkey_binary,
)

WANTED = "expected a writable Redis 7.0 or newer, or Valkey, at "


async def refusal(url: str, *, patience: float = 5.0) -> str:
    """Return why the server at `url` is refused, without the part that all refusals share."""
    with pytest.raises(StartError) as caught:
        await connect(BrokerConfig(url=url, timeout=Seconds(patience)))
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert "s3cret" not in sentence
    assert sentence.startswith(WANTED)
    return sentence.removeprefix(WANTED)


async def test_every_supported_server_will_do(any_server: RunningServer) -> None:
    await (await connect(BrokerConfig(url=any_server.url))).close()


# --- Out of reach


async def test_nobody_listens() -> None:
    port = free_port()
    assert await refusal(f"redis://:s3cret@127.0.0.1:{port}") == (
        f"redis://127.0.0.1:{port} but it cannot be reached: Connection refused"
    )


async def test_a_name_that_means_several_addresses() -> None:
    url = f"redis://localhost:{free_port()}"
    assert await refusal(url) == f"{url} but it cannot be reached: Connection refused"


async def test_a_host_that_does_not_exist() -> None:
    assert "redis://nowhere.invalid but it cannot be reached: " in (
        await refusal("redis://nowhere.invalid")
    )


async def test_a_socket_that_does_not_exist(short_dir: Path) -> None:
    url = f"unix://{short_dir}/s"
    assert await refusal(url) == f"{url} but it cannot be reached: No such file or directory"


async def test_a_server_that_stays_silent() -> None:
    with running(valkey_binary()) as server:
        os.kill(server.process.pid, signal.SIGSTOP)
        assert await refusal(server.url, patience=0.2) == (
            f"{server.url} but it did not answer within 0.2 s"
        )


async def test_a_host_that_stays_silent() -> None:
    """The backlog of the listening socket is full, so that the connection is never made."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, socket.socket() as first:
        first.connect(listener.getsockname())
        url = f"redis://127.0.0.1:{listener.getsockname()[1]}"
        assert await refusal(url, patience=0.2) == f"{url} but it did not answer within 0.2 s"


async def test_a_web_server() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()

    async with listening(refuse) as port:
        assert "but what answers there does not speak as Redis does: " in (
            await refusal(f"redis://127.0.0.1:{port}")
        )


async def test_a_server_that_hangs_up() -> None:
    async with fake_server({"HELLO": None}) as fake:
        assert "but what answers there does not speak as Redis does: Connection closed" in (
            await refusal(fake.url)
        )


# --- Credentials


@asynccontextmanager
async def locked(*, by_socket: bool) -> AsyncIterator[tuple[str, str]]:
    """Run a server with a password; gives what goes before and after the credentials in its URL."""
    port = free_port()
    with running(valkey_binary(), "--port", str(port), "--requirepass", "s3cret") as server:
        yield ("unix://", str(server.socket)) if by_socket else ("redis://", f"127.0.0.1:{port}")


by_socket_and_port = pytest.mark.parametrize("by_socket", [True, False])


@by_socket_and_port
async def test_the_right_password_opens(by_socket: bool) -> None:
    async with locked(by_socket=by_socket) as (scheme, address):
        await (await connect(BrokerConfig(url=f"{scheme}:s3cret@{address}"))).close()


@by_socket_and_port
async def test_a_wrong_password(by_socket: bool) -> None:
    async with locked(by_socket=by_socket) as (scheme, address):
        for credentials in (":guess@", "somebody:s3cret@"):
            assert "the user name or the password in the URL is wrong" in (
                await refusal(f"{scheme}{credentials}{address}")
            )


@by_socket_and_port
async def test_a_missing_password(by_socket: bool) -> None:
    async with locked(by_socket=by_socket) as (scheme, address):
        assert "but it asks for a password and the URL has none" in await refusal(scheme + address)


async def test_a_user_who_may_not_write() -> None:
    user = ("--user", "reader", "on", "nopass", "~*", "+@all", "-set")
    with running(valkey_binary(), *user) as server:
        url = server.url.replace("unix://", "unix://reader:s3cret@")
        assert "its user there is not allowed what the gateway needs: " in await refusal(url)


# --- Transport security


@pytest.mark.redis
async def test_tls(certificate: tuple[Path, Path]) -> None:
    port = free_port()
    key, known = certificate
    files = ("--tls-key-file", str(key), "--tls-cert-file", str(known))
    with running(redis7_binary(), "--tls-port", str(port), "--tls-auth-clients", "no", *files):
        url = f"rediss://127.0.0.1:{port}"
        await (await connect(BrokerConfig(url=f"{url}?ssl_ca_certs={known}"))).close()
        assert await refusal(url) == (
            f"{url} but its certificate is not accepted: self-signed certificate"
        )
        missing = f"{url}?ssl_ca_certs=/nowhere.pem"
        assert (
            await refusal(missing) == f"{url} but it cannot be reached: No such file or directory"
        )


async def test_tls_with_a_server_that_has_none() -> None:
    port = free_port()
    with running(valkey_binary(), "--port", str(port)):
        url = f"rediss://127.0.0.1:{port}"
        assert await refusal(url, patience=0.2) == (
            f"{url} but it did not answer within 0.2 s; does that port speak TLS?"
        )


# --- Unfit


async def test_an_old_redis() -> None:
    info = "# Server\r\nredis_version:6.2.14\r\nredis_mode:standalone\r\nrole:master\r\n"
    async with fake_server({"INFO": bulk(info)}) as fake:
        assert await refusal(fake.url) == f"{fake.url} but the server there is Redis 6.2.14"
        assert fake.count("SET") == 0


async def test_a_redis_from_before_the_protocol() -> None:
    unknown = b"-ERR unknown command `HELLO`, with args beginning with: `3`\r\n"
    async with fake_server({"HELLO": unknown}) as fake:
        assert await refusal(fake.url) == (
            f"{fake.url} but the server there is older than Redis 6.0"
        )


async def test_a_replica() -> None:
    port = free_port()
    with running(valkey_binary(), "--replicaof", f"127.0.0.1 {port}") as server:
        assert await refusal(server.url) == (
            f"{server.url} but the server there is a replica, which takes no writes, "
            f"of 127.0.0.1:{port}"
        )


async def test_a_member_of_a_cluster() -> None:
    port = str(free_port())
    bus = ("--cluster-port", str(free_port()))
    with running(valkey_binary(), "--port", port, "--cluster-enabled", "yes", *bus) as server:
        assert await refusal(server.url) == (
            f"{server.url} but the server there is part of a cluster, "
            "for which there is no edition yet"
        )


async def test_a_sentinel() -> None:
    info = "# Server\r\nredis_version:7.0.15\r\nredis_mode:sentinel\r\n"
    async with fake_server({"INFO": bulk(info)}) as fake:
        assert "but the server there is a Sentinel: write redis+sentinel://host:port/" in (
            await refusal(fake.url)
        )


async def test_a_server_that_throws_keys_away(any_server: RunningServer) -> None:
    with running(any_server.binary, "--maxmemory-policy", "allkeys-lru") as server:
        assert await refusal(server.url) == (
            f"{server.url} but its maxmemory-policy is allkeys-lru, by which a full server throws "
            "the log away: run CONFIG SET maxmemory-policy noeviction and put that into its "
            "configuration"
        )


async def test_a_server_with_a_full_memory() -> None:
    with running(valkey_binary(), "--maxmemory", "1") as server:
        assert "but it refuses to be written to: " in await refusal(server.url)


async def test_a_server_that_is_loading_is_waited_for(short_dir: Path) -> None:
    with running(valkey_binary(), "--dir", str(short_dir)) as server:
        await fill(server)
    slow = ("--key-load-delay", "5000", "--loading-process-events-interval-bytes", "1024")
    with running(valkey_binary(), "--dir", str(short_dir), *slow) as server:
        assert "but it was still loading its data after 0.1 s" in (
            await refusal(server.url, patience=0.1)
        )
        clients = await connect(BrokerConfig(url=server.url))
        assert await clients.commands.dbsize() == 200
        await clients.close()


async def fill(server: RunningServer) -> None:
    """Put in what takes a while to load: a server that loads answers after each kilobyte."""
    clients = await connect(BrokerConfig(url=server.url))
    await clients.commands.mset(
        {f"key-{number}": secrets.token_bytes(1024) for number in range(200)}
    )
    await clients.commands.bgrewriteaof()

    async def is_rewritten() -> bool:
        info = await clients.commands.info("persistence")
        return not info["aof_rewrite_in_progress"] and not info["aof_rewrite_scheduled"]

    await eventually(is_rewritten, reason="the append-only file was rewritten")
    await clients.close()


# --- Fit, but


@pytest.mark.parametrize(
    ("options", "loss"),
    [
        (("--appendonly", "no"), "everything is lost"),
        (
            ("--appendonly", "no", "--save", "900 1"),
            "what came after its last snapshot (save 900 1) is lost",
        ),
    ],
)
async def test_a_forgetful_server_is_warned_of(
    options: tuple[str, ...], loss: str, caplog: pytest.LogCaptureFixture
) -> None:
    with running(valkey_binary(), *options) as server:
        await (await connect(BrokerConfig(url=server.url))).close()
        assert caplog.record_tuples == [
            (
                "gateway.broker.checks",
                logging.WARNING,
                f"the server at {server.url} has no append-only file: when it stops, {loss}; "
                "set appendonly yes in its configuration",
            )
        ]


async def test_a_server_with_an_append_only_file_is_not_warned_of(
    valkey: RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    await (await connect(BrokerConfig(url=valkey.url))).close()
    assert caplog.record_tuples == []


async def test_the_check_leaves_nothing_behind(valkey: RunningServer) -> None:
    clients = await connect(BrokerConfig(url=valkey.url, namespace="nobody-else"))
    assert await clients.commands.keys("*nobody-else*") == []
    await clients.close()
