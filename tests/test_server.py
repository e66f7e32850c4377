"""Processes as supervisors and terminals treat them: started, shared, killed, told to stop."""

import asyncio
import json
import os
import re
import signal
import socket
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.processes import (
    PATIENCE,
    Running,
    Stream,
    configure,
    following,
    launch,
    running,
)
from tests.servers import Broker, eventually, free_port, is_alive, lasting

DEADLINE = 8.0
"""Seconds: well above the `shutdown` of these tests, well below the defaults."""


# --- Several processes


async def test_several_processes_share_a_port_replace_who_is_killed_and_end_with_their_parent(
    broker: Broker, tmp_path: Path
) -> None:
    configure(tmp_path, broker)
    async with AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(running(tmp_path, "run", "--workers", "3"))
        await eventually(
            lambda: serving(broker, 3), within=PATIENCE, reason="three processes tailed the log"
        )
        family = gateway.children()
        assert len(family) == 3
        streams: list[Stream] = []
        while len(gateway.connections()) < 2:  # the first that wakes may take all who wait
            streams += await stack.enter_async_context(following(gateway, 10))
        await gateway.place(1)
        await heard(streams, [1])

        os.kill(max(gateway.connections().items(), key=lambda each: each[1])[0], signal.SIGKILL)
        await eventually(
            lambda: len(gateway.children() - family) == 1, within=PATIENCE, reason="it was replaced"
        )
        assert len(gateway.children() & family) == 2
        async with httpx.AsyncClient(base_url=gateway.http.base_url, timeout=PATIENCE) as http:
            gateway.http = http  # the other one's connection was with the process that was killed
            await gateway.place(2)
        lost = [stream for stream in streams if stream.ended]
        assert 0 < len(lost) < len(streams), "connections of the other processes were cut too"
        await heard([stream for stream in streams if not stream.ended], [1, 2])
        for stream in lost[:3]:
            resumed = Stream()
            task = asyncio.create_task(resumed.follow(gateway, stream.position))
            await heard([resumed], [2])
            assert '"recovered":true' in resumed.text
            task.cancel()

        family = gateway.children()
        gateway.process.kill()
        await eventually(
            lambda: not any(map(is_alive, family)), within=PATIENCE, reason="the family ended too"
        )
        _, said = await gateway.ended()
        assert "a process ended with -9; another one takes its place" in said


async def serving(broker: Broker, count: int) -> bool:
    groups = await broker.clients.commands.xinfo_groups(f"{{{broker.config.namespace}}}:events")
    return len(groups) == count


async def heard(streams: list[Stream], numbers: list[int]) -> None:
    await eventually(
        lambda: all(stream.numbers == numbers for stream in streams),
        within=PATIENCE,
        reason=f"all {len(streams)} streams had {numbers}",
    )


# --- Stopping


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_sigterm_says_goodbye_and_ends_in_time_whatever_its_peers_do(
    broker: Broker, tmp_path: Path, workers: str
) -> None:
    configure(tmp_path, broker)
    async with running(tmp_path, "serve", "--workers", workers) as gateway:
        idle = await asyncio.open_connection("127.0.0.1", gateway.port)
        half = await asyncio.open_connection("127.0.0.1", gateway.port)
        half[1].write(b"POST /place HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{")
        waiting = asyncio.create_task(
            gateway.http.post("/place", json=1, headers={"prefer": "wait=20"})
        )
        async with (
            following(gateway, 3) as streams,
            connect(f"ws://127.0.0.1:{gateway.port}/ws?channel=log", proxy=None) as client,
        ):
            assert "subscribed" in json.loads(await client.recv())
            await eventually(
                lambda: accepted(broker), within=PATIENCE, reason="the command was accepted"
            )
            begun = time.monotonic()
            gateway.signal(signal.SIGTERM)
            assert (await waiting).status_code == 202
            assert set(json.loads(await client.recv())) == {"position"}
            assert set(json.loads(await client.recv())) == {"goodbye"}
            with pytest.raises(ConnectionClosed) as closed:
                await client.recv()
            assert closed.value.rcvd
            assert closed.value.rcvd.code == 4000
            await eventually(
                lambda: all(stream.ended for stream in streams), within=PATIENCE, reason="all ended"
            )
            assert all("event: goodbye" in stream.text for stream in streams)
            code, said = await gateway.ended()
            assert time.monotonic() - begun < DEADLINE
        assert code == 0
        assert "Traceback" not in said
        assert await idle[0].read() == b""
        cut = await half[0].read()
        assert cut.startswith(b"HTTP/1.1 503 ")
        assert b"urn:push-gateway:problem:shutting-down" in cut
        for _, writer in (idle, half):
            writer.close()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", gateway.port)


async def accepted(broker: Broker) -> bool:
    keys = await broker.clients.commands.keys(f"{{{broker.config.namespace}}}:status:*")
    return len(keys) == 1


async def test_sigterm_ends_it_also_without_its_broker(
    broker: Broker, short_dir: Path, tmp_path: Path
) -> None:
    configure(tmp_path, broker)
    text = (tmp_path / "gateway.toml").read_text()
    url = f"unix://{short_dir / 's'}"
    (tmp_path / "gateway.toml").write_text(text.replace(str(broker.config.url), url))
    with lasting(short_dir) as server:
        await eventually((short_dir / "s").exists, within=PATIENCE, reason="the server was there")
        async with running(tmp_path, "run") as gateway:
            await gateway.place(1)
            server.kill()
            gateway.signal(signal.SIGTERM)
            code, said = await gateway.ended()
    assert code == 0
    assert "Traceback" not in said


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_second_signal_ends_it_at_once(
    broker: Broker, tmp_path: Path, workers: str
) -> None:
    configure(tmp_path, broker)
    async with running(tmp_path, "run", "--workers", workers) as gateway:
        await gateway.http.post("/sleep", json=None)
        await eventually(lambda: started(broker), within=PATIENCE, reason="the handler ran")
        gateway.signal(signal.SIGTERM)
        await refused(gateway)
        assert gateway.process.returncode is None  # it lets the handler finish
        begun = time.monotonic()
        gateway.signal(signal.SIGTERM)
        code, _ = await gateway.ended()
        assert time.monotonic() - begun < DEADLINE
        assert code == 130


async def started(broker: Broker) -> bool:
    redis: Any = broker.clients.commands
    keys = await redis.keys(f"{{{broker.config.namespace}}}:status:*")
    return b"started" in [await redis.hget(key, "status") for key in keys]


async def refused(gateway: Running) -> None:
    """Wait until no connection is taken any more."""

    def gone() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", gateway.port)) != 0

    await eventually(gone, within=PATIENCE, reason="it listened no more")


async def test_ctrl_c_in_a_terminal_is_one_signal_to_a_family_of_processes(
    broker: Broker, tmp_path: Path
) -> None:
    configure(tmp_path, broker)
    async with (
        running(tmp_path, "run", "--workers", "2") as gateway,
        following(gateway, 4) as streams,
    ):
        os.killpg(gateway.process.pid, signal.SIGINT)
        code, said = await gateway.ended()
        assert code == 0
        assert "Traceback" not in said
        assert all("event: goodbye" in stream.text for stream in streams)


# --- What keeps it from starting


@pytest.mark.parametrize(("command", "workers"), [("run", "1"), ("work", "2")])
async def test_handlers_that_cannot_be_used_are_told_once(
    broker: Broker, tmp_path: Path, command: str, workers: str
) -> None:
    configure(tmp_path, broker)
    (tmp_path / "handlers.py").write_text("import nothing_of_that_name\n")
    code, said = await outcome(tmp_path, command, "--workers", workers)
    assert code == 2
    assert said.count("nothing_of_that_name") == 1
    assert "Traceback" not in said


async def outcome(folder: Path, *arguments: str) -> tuple[int, str]:
    process = await launch(folder, *arguments)
    _, err = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert process.returncode is not None
    return process.returncode, err.decode()


async def test_a_broker_that_cannot_be_had_is_told_once_by_several_processes(
    broker: Broker, tmp_path: Path
) -> None:
    configure(tmp_path, broker)
    text = (tmp_path / "gateway.toml").read_text()
    url = f"redis://127.0.0.1:{free_port()}"
    (tmp_path / "gateway.toml").write_text(text.replace(str(broker.config.url), url))
    code, said = await outcome(tmp_path, "serve", "--workers", "3")
    assert code == 3
    assert re.fullmatch(r"gateway: expected a writable Redis .* Connection refused\n", said)


async def test_of_two_that_want_one_port_the_second_says_so_and_touches_nothing(
    broker: Broker, tmp_path: Path
) -> None:
    configure(tmp_path, broker)
    async with running(tmp_path, "serve") as gateway:
        code, said = await outcome(
            tmp_path, "run", "--workers", "2", "--port", str(gateway.port), "--data-dir", "data"
        )
        sentence = f"cannot listen on 127.0.0.1:{gateway.port}: Address already in use"
        sentence += "; --port chooses another, 0 any free one"
        assert (code, said) == (3, f"gateway: {sentence}\n")
        assert (await gateway.http.get("/readyz")).status_code == 200
    assert not (tmp_path / "data").exists()


# --- What it tells


async def test_machines_can_read_every_line_that_is_told(broker: Broker, tmp_path: Path) -> None:
    configure(tmp_path, broker, '[log]\nformat = "json"\nrequests = true\n')
    async with running(tmp_path, "run") as gateway:
        await gateway.place(1)
        await gateway.http.get("/nowhere?x=%0a")
        gateway.signal(signal.SIGTERM)
        code, said = await gateway.ended()
    assert code == 0
    entries = [json.loads(line) for line in said.splitlines()]
    assert {entry["level"] for entry in entries} == {"info"}
    told = [(e["method"], e["path"], e["status"]) for e in entries if "method" in e]
    assert told == [("POST", "/place", 200), ("GET", "/nowhere?x=%0a", 404)]
    assert any("handles commands of work" in entry["message"] for entry in entries)
