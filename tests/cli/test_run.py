"""`gateway run`, `serve` and `work` as processes, with what they print taken at its word."""

import json
import re
import shlex
import signal
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import httpx
import pytest

from gateway.cli.run import Options, _example
from gateway.config import Config
from tests.cli.terminal import Result, Running, run, started
from tests.servers import free_port

CONFIG = """
[events]
anonymous = true
[[channels]]
pattern = "orders"
history = { size = 100, ttl = "1h" }
"""


@dataclass(frozen=True)
class Ready:
    """A gateway that takes requests, and what it printed."""

    running: Running
    text: str

    @property
    def url(self) -> str:
        found = re.search(r"SSE +(http://[\d.]+:\d+)/sse", self.text)
        assert found
        return found[1]

    def curls(self) -> list[list[str]]:
        """The command lines to paste."""
        lines = [line.strip() for line in self.text.splitlines()]
        return [shlex.split(line) for line in lines if line.startswith("curl ")]

    async def stopped(self) -> Result:
        """End it as a supervisor would."""
        self.running.process.send_signal(signal.SIGTERM)
        return await self.running.result()


@asynccontextmanager
async def ready(
    *arguments: str, cwd: Path, env: Mapping[str, str] = MappingProxyType({})
) -> AsyncIterator[Ready]:
    """Start a gateway and wait until it says that it is ready."""
    async with started(*arguments, cwd=cwd, env=env) as running:
        lines: list[str] = []
        while "Ctrl-C stops it." not in "".join(lines[-1:]):
            line = await running.out()
            if not line:
                raise AssertionError(await running.result())
            lines.append(line)
        yield Ready(running, "".join(lines))


async def curl(client: httpx.AsyncClient, arguments: list[str]) -> httpx.Response:
    """Do what `curl URL -H ... -d ...` does."""
    _, url, *options = arguments
    pairs = list(zip(options[::2], options[1::2], strict=True))
    headers = dict(value.split(": ", 1) for flag, value in pairs if flag == "-H")
    (data,) = [value for flag, value in pairs if flag == "-d"]
    return await client.post(url, content=data, headers=headers)


async def test_run_in_an_empty_folder_runs_the_example_and_its_curls_work(short_dir: Path) -> None:
    async with ready("run", "--port", "0", cwd=short_dir) as gateway:
        follow, post, wait = gateway.curls()
        assert follow[:2] == ["curl", "-N"]
        async with (
            httpx.AsyncClient(timeout=30) as client,
            client.stream("GET", follow[2]) as stream,
        ):
            lines = stream.aiter_lines()
            while not (await anext(lines)).startswith("event: subscribed"):
                pass
            assert (await curl(client, post)).status_code == 202
            outcome = await curl(client, wait)
            assert (outcome.status_code, outcome.json()["status"]) == (200, "succeeded")
            data = [line async for line in _data(lines, 2)]
            assert {event["channel"] for event in data} == {"orders"}
            assert (await client.get(f"{gateway.url}/demo/")).status_code == 200
        result = await gateway.stopped()
        assert result.code == 0
        assert [line for line in result.err.splitlines() if " INFO " not in line] == []
    assert (short_dir / ".gateway").is_dir()


async def _data(lines: AsyncIterator[str], count: int) -> AsyncIterator[dict[str, object]]:
    """The first `count` events of a stream."""
    async for line in lines:
        if line.startswith("data: ") and "specversion" in line:
            yield json.loads(line.removeprefix("data: "))
            count -= 1
        if not count:
            return


async def test_events_go_from_publish_through_a_real_gateway_to_subscribe(short_dir: Path) -> None:
    (short_dir / "gateway.toml").write_text(CONFIG)
    async with ready("serve", "--port", "0", "--workers", "2", cwd=short_dir) as gateway:
        url = ("--url", gateway.url)
        for transport in ((), ("--sse",)):
            async with started(
                "subscribe", "orders", "--until", "3", "--json", *url, *transport
            ) as follower:
                await follower.err("Subscribed to orders")
                published = await run(
                    "publish", "t", "--batch", "--channel", "orders", *url, stdin="1\n2\n3\n"
                )
                result = await follower.result()
            events = [json.loads(line) for line in result.lines]
            assert [event["data"] for event in events] == [1, 2, 3]
            assert [event["id"] for event in events] == published.lines
        replayed = await run("subscribe", "orders", "--after", "earliest", "--until", "6", *url)
        assert len(replayed.lines) == 6
        assert (await gateway.stopped()).code == 0


async def test_a_worker_says_what_it_works_on(short_dir: Path) -> None:
    command = '[[commands]]\npath = "/a"\ntype = "a"\nstream = "letters"\n'
    (short_dir / "gateway.toml").write_text('[worker]\nhandlers = ["mine"]\n' + command)
    (short_dir / "mine.py").write_text(
        'from gateway import handles\n\n@handles("a")\nasync def a(command): ...\n'
    )
    async with ready("work", cwd=short_dir) as gateway:
        assert gateway.text.startswith("Working on letters: gateway.toml, with its log in .gateway")
        assert (await gateway.stopped()).code == 0


@pytest.mark.parametrize("command", ["run", "serve", "work"])
async def test_a_broker_that_cannot_be_had_is_exit_code_3(command: str, tmp_path: Path) -> None:
    url = f"redis://127.0.0.1:{free_port()}"
    (tmp_path / "gateway.toml").write_text(f'[server]\nport = 0\n[broker]\nurl = "{url}"\n')
    result = await run(command, cwd=tmp_path)
    assert result.code == 3
    assert result.err.startswith("gateway: ")
    assert result.err.count("\n") == 1


async def test_a_port_that_is_taken_is_exit_code_3(short_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = await run("run", "--port", str(port), cwd=short_dir)
    assert result.code == 3
    assert result.err == (
        f"gateway: cannot listen on 127.0.0.1:{port}: Address already in use; "
        "--port chooses another, 0 any free one\n"
    )


@pytest.mark.parametrize("command", ["run", "serve", "work"])
async def test_a_wrong_configuration_is_exit_code_2(command: str, tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").write_text("[serv]\n[worker]\nconcurrency = 0\n")
    result = await run(command, cwd=tmp_path)
    assert result.code == 2
    assert [line.split(": ")[0] for line in result.err.splitlines()] == [
        "gateway.toml:1",
        "gateway.toml:3",
    ]


async def test_serve_needs_a_configuration(tmp_path: Path) -> None:
    result = await run("serve", cwd=tmp_path)
    assert result.code == 2
    assert result.err.startswith("gateway.toml: there is no such file")


def test_options_replace_what_is_configured(tmp_path: Path) -> None:
    config = Options("0.0.0.0", 0, tmp_path, 1).applied(Config())
    assert (config.server.host, config.server.port) == ("0.0.0.0", 0)
    assert config.broker.data_dir == tmp_path
    assert Options(None, None, None, 1).applied(config) == config


def test_the_example_keeps_its_data_in_this_folder_unless_it_is_told_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _example()[0].broker.data_dir == tmp_path / ".gateway"
    monkeypatch.setenv("GATEWAY_BROKER_DATA_DIR", "/var/lib/shop")
    assert _example()[0].broker.data_dir == Path("/var/lib/shop")
