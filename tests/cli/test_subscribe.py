"""`gateway subscribe` in a terminal and in a pipe."""

import json
import re
import shlex
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from starlette.responses import JSONResponse

from gateway.__main__ import main
from gateway.cli.lines import age, printable
from gateway.cli.options import DEFAULT_URL, gateway_url
from gateway.events import now
from tests.cli.terminal import run, started
from tests.client.peer import Network, network
from tests.servers import eventually


@pytest.fixture(params=[(), ("--sse",)], ids=["websocket", "sse"])
def transport(request: pytest.FixtureRequest) -> tuple[str, ...]:
    options: tuple[str, ...] = request.param
    return options


@pytest.fixture
async def net() -> AsyncIterator[Network]:
    async with network() as net:
        yield net


async def test_it_prints_one_cloudevent_a_line_for_pipes(
    net: Network, transport: tuple[str, ...]
) -> None:
    for number in range(3):
        net.peer.publish("orders", number)
    options = ("--after", "earliest", "--json", "--until", "2", "--url", net.url, *transport)
    result = await run("subscribe", "orders", *options)
    assert result.code == 0
    assert [json.loads(line)["data"] for line in result.lines] == [0, 1]
    assert "--after e1-2-0" in result.err


async def test_it_prints_readable_lines(net: Network, transport: tuple[str, ...]) -> None:
    time, subject = now(), "o-\x1b[2J7"
    net.peer.publish("orders:c-19", {"sku": "tea"}, type="order.placed", time=time, subject=subject)
    options = ("--after", "earliest", "--until", "1", "--url", net.url, *transport)
    result = await run("subscribe", "orders:c-19", *options)
    (line,) = result.lines
    assert re.match(r"\d\d:\d\d:\d\d\.\d{3} +[\d.]+ m?s ", line)
    assert line.endswith('  orders:c-19  order.placed        o-\\x1b[2J7  {"sku":"tea"}')


async def test_ctrl_c_ends_it_and_tells_how_to_go_on(
    net: Network, transport: tuple[str, ...]
) -> None:
    arguments = ("a", "b:1", "--json", "--url", net.url, *transport)
    async with started("subscribe", *arguments) as running:
        await running.err("Subscribed to b:1")
        net.peer.publish("a", 1)
        net.peer.publish("b:1", 2)
        await running.out()
        await running.out()
        running.process.send_signal(signal.SIGINT)
        go_on = await running.err("Go on with: ")
        assert (await running.result()).code == 0
    net.peer.publish("a", 3)
    net.peer.publish("b:1", 4)
    command = shlex.split(go_on.removeprefix("Go on with: "))
    assert command[0] == "gateway"
    result = await run(*command[1:], "--until", "2")
    assert [json.loads(line)["data"] for line in result.lines] == [3, 4]


async def test_it_goes_on_with_the_file_of_its_token(net: Network, tmp_path: Path) -> None:
    net.peer.publish("a", 1)
    file = tmp_path / "token.txt"
    file.write_text("sesame")
    for token, shown in ((f"@{file}", f" --token @{file}"), ("sesame", "")):
        options = ("--after", "earliest", "--until", "1", "--url", net.url, "--token", token)
        result = await run("subscribe", "a", *options)
        assert f"gateway subscribe a --url {net.url}{shown} --after e1-1-0" in result.err
        assert "sesame" not in result.err


async def test_who_needs_a_token_is_told_to_show_one(
    net: Network, transport: tuple[str, ...]
) -> None:
    for options, said in (((), "with --token"), (("--token", "x"), "Who are you (unauthorized)")):
        problem = {"title": "Who are you", "code": "unauthorized"}
        net.peer.refusals.append(JSONResponse(problem, 401))
        result = await run("subscribe", "a", "--url", net.url, *transport, *options)
        assert result.code == 1
        assert said in result.err


async def test_each_channel_goes_on_after_its_own_position(net: Network) -> None:
    net.peer.publish("a", 1)
    net.peer.publish("b", 2)
    after = ("--after", "a=earliest", "--after", "b=e1-2-0")
    result = await run("subscribe", "a", "b", *after, "--json", "--until", "1", "--url", net.url)
    assert [json.loads(line)["data"] for line in result.lines] == [1]
    assert "--after a=e1-1-0 --after b=e1-2-0" in result.err


async def test_it_says_that_it_was_cut_off_and_comes_back(
    net: Network, transport: tuple[str, ...]
) -> None:
    arguments = ("orders", "--json", "--until", "2", "--url", net.url, *transport)
    async with started("subscribe", *arguments) as running:
        await running.err("Subscribed to orders at e1-0-0.")
        net.peer.publish("orders", 1)
        assert json.loads(await running.out())["data"] == 1
        net.proxy.cut()
        await running.err("Trying again in")
        net.peer.publish("orders", 2)
        assert json.loads(await running.out())["data"] == 2
        assert (await running.result()).code == 0


async def test_lost_events_are_said_loudly(net: Network, transport: tuple[str, ...]) -> None:
    for number in range(3):
        net.peer.publish("orders", number)
    net.peer.trim("orders", 2)
    options = ("--after", "e1-1-0", "--json", "--until", "1", "--url", net.url, *transport)
    result = await run("subscribe", "orders", *options)
    assert [json.loads(line)["data"] for line in result.lines] == [2]
    assert "EVENTS ARE MISSING on orders (recovered: false)" in result.err


async def test_a_final_close_code_is_a_failure(net: Network) -> None:
    async with started("subscribe", "orders", "--url", net.url) as running:
        await running.err("Subscribed")
        net.peer.close(4502, "not yours")
        result = await running.result()
    assert result.code == 1
    assert "gateway: closed with 4502: not yours\n" in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize("form", [(), ("--json",)], ids=["readable", "json"])
async def test_a_reader_that_has_had_enough_ends_it_quietly(
    net: Network, form: tuple[str, ...]
) -> None:
    async with started("subscribe", "orders", "--url", net.url, *form) as running:
        await running.err("Subscribed")
        running.process.stdout._transport.close()  # type: ignore[union-attr]

        def ended() -> bool:
            net.peer.publish("orders", 1)
            return running.process.returncode is not None

        await eventually(ended, reason="it ended")
        assert running.process.returncode == 0
        assert running.process.stderr
        assert await running.process.stderr.read() == b""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing argument 'CHANNEL'"),
        (["two words"], "expected a channel name"),
        (["a", "--after", "yesterday"], "expected a position that this gateway gave out"),
        (["a", "--after", "b=e-1-0"], "a position is given for b, which is not followed"),
        (["a", "--after", "e-1-0", "--after", "a=e-1-0"], "expected one --after POSITION"),
        (["a", "b", "--after", "a=e-1-0", "--sse"], "over SSE one position covers all channels"),
        (["a", "--until", "0"], "'--until'"),
        (["a", "--url", "nonsense"], "expected a URL like"),
    ],
)
def test_wrong_usage_is_one_clear_line_and_exit_code_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["subscribe", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("gateway: ")
    assert message in err
    assert err.count("\n") == 1


def test_nothing_that_comes_in_can_steer_the_terminal() -> None:
    assert printable("plain ä €") == "plain ä €"
    assert printable("\x1b]0;\x07 \x9b \u202e\n") == "\\x1b]0;\\x07 \\x9b \\u202e\\n"


def test_the_age_of_an_event_is_readable() -> None:
    from datetime import UTC, datetime

    arrived = datetime(2026, 1, 2, 12, 0, 0, tzinfo=UTC)
    assert age("2026-01-02T11:59:59.997Z", arrived) == "3 ms"
    assert age("2026-01-02T12:59:58.500+01:00", arrived) == "1.5 s"
    assert age("2026-01-02T11:55:00Z", arrived) == "5 min"
    assert age("2026-01-02T07:00:00Z", arrived) == "5 h"
    assert age("2026-01-02T12:00:00", arrived) == age("soon", arrived) == age(None, arrived) == ""


async def test_without_an_address_it_asks_the_gateway_of_the_folder(
    net: Network, tmp_path: Path
) -> None:
    port = net.url.rpartition(":")[2]
    (tmp_path / "gateway.toml").write_text(f'[server]\nhost = "0.0.0.0"\nport = {port}\n')
    net.peer.publish("a", 1)
    follow = ("subscribe", "a", "--after", "earliest", "--until", "1", "--json")
    result = await run(*follow, cwd=tmp_path)
    assert json.loads(result.out)["data"] == 1
    assert f"--url http://127.0.0.1:{port}" in result.err


@pytest.mark.parametrize("text", ["port = 'x'", "[server]\nport = 0\n"])
def test_a_configuration_that_does_not_tell_the_address_is_not_passed_over(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert gateway_url(None) == DEFAULT_URL
    (tmp_path / "gateway.toml").write_text(text)
    assert gateway_url("https://a") == "https://a"
    assert main(["subscribe", "a"]) == 2
    assert "port" in capsys.readouterr().err
