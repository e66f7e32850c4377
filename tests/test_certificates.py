"""TLS from files: what is refused, what is negotiated, and what happens when the files change."""

import asyncio
import os
import shutil
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.certificates import Certificates
from gateway.config import TLSConfig
from gateway.errors import ConfigError
from gateway.policy import load_checked
from tests.certificates import Authority, openssl


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def config(authority: Authority, tmp_path: Path) -> TLSConfig:
    issued = authority.issue("first")
    config = TLSConfig(certificate=tmp_path / "tls.crt", key=tmp_path / "tls.key")
    assert config.certificate
    assert config.key
    shutil.copy(issued.certificate, config.certificate)
    shutil.copy(issued.key, config.key)
    return config


@asynccontextmanager
async def serving(certificates: Certificates) -> AsyncIterator[int]:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"welcome")
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0, ssl=certificates.context)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def visit(
    port: int, authority: Authority, change: Callable[[ssl.SSLContext], None] = lambda context: None
) -> tuple[str, bytes]:
    """Connect; return the name in the certificate, and what was said."""
    context = ssl.create_default_context(cafile=authority.certificate)
    change(context)
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    try:
        said = await asyncio.wait_for(reader.read(), 30)
        if not said:  # TLS 1.3: the client is through before the server has looked at it
            raise ConnectionResetError
        subject = dict(each[0] for each in writer.get_extra_info("peercert")["subject"])
        return subject["commonName"], said
    finally:
        writer.transport.abort()


@pytest.fixture
async def port(config: TLSConfig) -> AsyncIterator[int]:
    async with serving(Certificates(config)) as port:
        yield port


async def test_new_files_count_for_every_handshake_from_then_on(
    config: TLSConfig, authority: Authority
) -> None:
    certificates = Certificates(config)
    async with serving(certificates) as port:
        assert await visit(port, authority) == ("first", b"welcome")
        second = authority.issue("second")
        shutil.copy(second.certificate, str(config.certificate))
        certificates.refresh()  # one file of two: not a pair yet
        assert await visit(port, authority) == ("first", b"welcome")
        shutil.copy(second.key, str(config.key))
        certificates.refresh()
        assert await visit(port, authority) == ("second", b"welcome")


async def test_files_that_cannot_be_used_change_nothing_and_are_told_of_once(
    config: TLSConfig, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    certificates = Certificates(config)
    async with serving(certificates) as port:
        assert config.key
        config.key.write_text("no key")
        certificates.refresh()
        certificates.refresh()
        config.key.unlink()
        certificates.refresh()
        assert await visit(port, authority) == ("first", b"welcome")
    told = [record.message for record in caplog.records]
    assert len(told) == 2
    assert told[0].startswith("the certificate stays the one that it was: expected a certificate")
    assert told[1].endswith(f"cannot read {config.key}: No such file or directory")


async def test_nothing_older_than_tls_1_2_is_spoken(port: int, authority: Authority) -> None:
    def oldest(context: ssl.SSLContext) -> None:
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        with pytest.warns(DeprecationWarning, match="deprecated"):
            context.maximum_version = ssl.TLSVersion.TLSv1_1

    def second_oldest(context: ssl.SSLContext) -> None:
        context.maximum_version = ssl.TLSVersion.TLSv1_2

    with pytest.raises((ssl.SSLError, ConnectionError)):
        await visit(port, authority, oldest)
    assert await visit(port, authority, second_oldest) == ("first", b"welcome")


async def test_with_a_client_authority_nobody_else_is_served(
    config: TLSConfig, authority: Authority, tmp_path: Path
) -> None:
    config = TLSConfig(
        certificate=config.certificate, key=config.key, client_ca=authority.certificate
    )
    known, stranger = authority.issue("known"), Authority(tmp_path, "other").issue("stranger")
    async with serving(Certificates(config)) as port:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await visit(port, authority)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await visit(
                port, authority, lambda c: c.load_cert_chain(stranger.certificate, stranger.key)
            )
        name, _ = await visit(
            port, authority, lambda c: c.load_cert_chain(known.certificate, known.key)
        )
        assert name == "first"


async def test_a_client_authority_that_is_replaced_counts_for_who_was_let_in_before(
    config: TLSConfig, authority: Authority, tmp_path: Path
) -> None:
    authorities = tmp_path / "clients.pem"
    shutil.copy(authority.certificate, authorities)
    known = authority.issue("known")
    context = ssl.create_default_context(cafile=authority.certificate)
    context.load_cert_chain(known.certificate, known.key)

    def connect(port: int, session: ssl.SSLSession | None = None) -> ssl.SSLSession | None:
        with (
            socket.create_connection(("127.0.0.1", port), 30) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1", session=session) as wrapped,
        ):
            if not wrapped.recv(100):  # the client is through before the server has looked at it
                raise ConnectionResetError
            return wrapped.session

    certificates = Certificates(
        TLSConfig(certificate=config.certificate, key=config.key, client_ca=authorities)
    )
    async with serving(certificates) as port:
        session = await asyncio.to_thread(connect, port)
        shutil.copy(Authority(tmp_path, "another").certificate, authorities)
        certificates.refresh()
        for resumed in (session, None):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await asyncio.to_thread(connect, port, resumed)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.to_thread(connect, port)


def problems(folder: Path, text: str) -> list[str]:
    file = folder / "gateway.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_checked(file, {})
    return str(caught.value).replace(f"{folder}{os.sep}", "").splitlines()


def test_files_that_cannot_be_used_are_reported_where_they_are_named(
    authority: Authority, tmp_path: Path
) -> None:
    shutil.copy(authority.issue("a").certificate, tmp_path / "a.crt")
    shutil.copy(authority.issue("b").key, tmp_path / "b.key")
    (tmp_path / "none.pem").write_text("no certificate")
    assert problems(tmp_path, '\n[tls]\ncertificate = "nowhere.crt"\n') == [
        "gateway.toml:3: tls.certificate: cannot read nowhere.crt: No such file or directory"
    ]
    (told,) = problems(tmp_path, '[tls]\ncertificate = "a.crt"\nkey = "b.key"')
    assert told.startswith("gateway.toml:2: tls.certificate: expected a certificate, and in b.key")
    assert told.endswith("key values mismatch")
    shutil.copy(authority.issue("c").certificate, tmp_path / "c.crt")
    shutil.copy(authority.issue("c").key, tmp_path / "c.key")
    (told,) = problems(
        tmp_path, '[tls]\ncertificate = "a.crt"\nkey = "a.key"\nclient_ca = "none.pem"'
    )
    assert "cannot read a.key" in told
    assert problems(tmp_path, '[tls]\nkey = "b.key"\nclient_ca = "none.pem"') == [
        "gateway.toml:2: tls.key: expected a certificate beside it",
        "gateway.toml:3: tls.client_ca: expected a certificate beside it",
    ]


def test_a_key_with_a_password_is_refused_and_nobody_is_asked_for_it(
    authority: Authority, tmp_path: Path
) -> None:
    issued = authority.issue("locked")
    shutil.copy(issued.certificate, tmp_path / "locked.crt")
    openssl(f"ec -in {issued.key} -aes256 -passout pass:hush -out {tmp_path}/locked.key")
    (told,) = problems(tmp_path, '[tls]\ncertificate = "locked.crt"\nkey = "locked.key"')
    assert "its private key without a password" in told
