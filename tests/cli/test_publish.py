"""`gateway publish` against a real socket: what it sends, what it repeats, and what it says."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import JSONResponse, PlainTextResponse

from gateway.__main__ import main
from tests.cli.terminal import Result, run, started
from tests.client.peer import Network, network
from tests.servers import eventually

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"


@pytest.fixture
async def net() -> AsyncIterator[Network]:
    async with network() as net:
        yield net


async def publish(net: Network, *arguments: str, stdin: str = "") -> Result:
    return await run("publish", *arguments, "--url", net.url, stdin=stdin)


def posted(net: Network) -> Any:
    (media_type, body) = net.peer.bodies.pop()
    assert media_type == (BATCH if isinstance(body, list) else STRUCTURED)
    return body


async def test_an_event_is_posted_and_its_id_printed(net: Network) -> None:
    options = ("--channel", "orders", "--subject", "o-7", "--source", "/till/3")
    result = await publish(net, "order.shipped", '{"id": 7}', *options)
    event = posted(net)
    assert result == Result(0, event["id"] + "\n", "")
    assert event.pop("time").endswith("Z")
    assert event == {
        "specversion": "1.0",
        "id": event["id"],
        "source": "/till/3",
        "type": "order.shipped",
        "subject": "o-7",
        "datacontenttype": "application/json",
        "channel": "orders",
        "data": {"id": 7},
    }


async def test_an_event_may_have_no_data(net: Network) -> None:
    assert (await publish(net, "shop.opened")).code == 0
    assert "data" not in posted(net)


async def test_data_comes_from_a_file_or_from_stdin(net: Network, tmp_path: Path) -> None:
    file = tmp_path / "data.json"
    file.write_text('{\n  "price": 1.50\n}\n')
    assert (await publish(net, "a", f"@{file}")).code == 0
    assert posted(net)["data"] == {"price": 1.5}
    assert (await publish(net, "a", "-", stdin='["ä"]')).code == 0
    assert posted(net)["data"] == ["ä"]


async def test_the_token_may_be_in_a_file(net: Network, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret\n")
    assert (await publish(net, "a", "--token", f"@{tmp_path / 'token'}")).code == 0
    assert net.peer.authorizations == ["Bearer s3cret"]


async def test_a_batch_has_an_event_in_each_line(net: Network) -> None:
    result = await publish(net, "sensor.read", "--batch", stdin='1\n\n{"c": 2}\n"three"\n')
    events = posted(net)
    assert [event["data"] for event in events] == [1, {"c": 2}, "three"]
    assert {event["type"] for event in events} == {"sensor.read"}
    assert result.lines == [event["id"] for event in events]


async def test_a_batch_without_type_has_a_cloudevent_in_each_line(net: Network) -> None:
    whole = {"specversion": "1.0", "id": "x", "source": "/far", "type": "a", "time": "t", "data": 1}
    lines = [json.dumps(whole), '{"type": "b", "channel": "orders"}']
    result = await publish(net, "--batch", stdin="\n".join([*lines, ""]))
    first, second = posted(net)
    assert first == whole
    assert result.lines == ["x", second["id"]]
    assert (second["type"], second["channel"]) == ("b", "orders")
    assert second["source"] == "/gateway/cli"


async def test_a_slow_producer_is_not_waited_for(net: Network) -> None:
    async with started("publish", "tick", "--batch", "--url", net.url) as running:
        assert running.process.stdin
        for number in range(3):
            running.process.stdin.write(b"%d\n" % number)
            await _bodies(net, number + 1)
        running.process.stdin.close()
        assert (await running.result()).code == 0
    assert [body[0]["data"] for _, body in net.peer.bodies] == [0, 1, 2]


async def _bodies(net: Network, count: int) -> None:
    await eventually(lambda: len(net.peer.bodies) == count, reason="it was posted")


async def test_a_large_batch_goes_out_in_several_requests(net: Network) -> None:
    lines = "\n".join(json.dumps("x" * 1000) for _ in range(2000))
    result = await publish(net, "big", "--batch", stdin=lines)
    assert result.code == 0
    bodies = [body for _, body in net.peer.bodies]
    assert len(bodies) > 1
    assert max(len(json.dumps(body)) for body in bodies) < 1 << 20
    assert result.lines == [event["id"] for body in bodies for event in body]
    assert len(result.lines) == 2000


async def test_a_line_that_is_no_event_ends_the_batch(net: Network) -> None:
    result = await publish(net, "a", "--batch", stdin="1\n2\n{\n4\n")
    assert result.code == 1
    assert result.err.startswith("gateway: stdin:3: ")
    assert result.err.count("\n") == 1
    assert [event["data"] for event in posted(net)] == [1, 2]
    assert len(result.lines) == 2


async def test_it_waits_for_a_gateway_that_is_not_there_yet(net: Network) -> None:
    await net.proxy.refuse()
    async with started("publish", "a", "--url", net.url) as running:
        assert "connection refused; trying again" in await running.err("trying again")
        await net.proxy.open()
        assert (await running.result()).code == 0
    assert len(net.peer.bodies) == 1


async def test_it_comes_back_when_the_broker_does(net: Network) -> None:
    problem = {"title": "The broker is not available", "code": "broker-unavailable", "status": 503}
    net.peer.answers.append(JSONResponse(problem, 503, headers={"Retry-After": "0"}))
    result = await publish(net, "a")
    assert result.code == 0
    assert "The broker is not available (broker-unavailable); trying again in 0.0 s" in result.err


async def test_a_broker_that_stays_away_has_an_exit_code_of_its_own(net: Network) -> None:
    problem = {"title": "The broker is not available", "code": "broker-unavailable", "status": 503}
    net.peer.answers.append(JSONResponse(problem, 503, headers={"Retry-After": "3"}))
    result = await publish(net, "a", "--retry-for", "1")
    assert result == Result(3, "", "gateway: The broker is not available (broker-unavailable)\n")


async def test_a_gateway_that_stays_away_is_a_failure(net: Network) -> None:
    await net.proxy.refuse()
    result = await publish(net, "a", "--retry-for", "0")
    port = net.proxy.port
    assert result == Result(
        1, "", f"gateway: cannot connect to 127.0.0.1:{port}: connection refused\n"
    )


async def test_what_may_have_been_published_is_not_repeated(net: Network) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        calls.append(1)
        writer.close()

    calls: list[int] = []
    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        result = await run("publish", "a", "--url", f"http://127.0.0.1:{port}")
    assert result.code == 1
    assert "may or may not have been published" in result.err
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (
            JSONResponse({"title": "T", "detail": "missing token", "code": "unauthorized"}, 401),
            "T: missing token (unauthorized)",
        ),
        (
            PlainTextResponse("x", 500),
            "http://127.0.0.1:{port}/events answered Internal Server Error (500)",
        ),
        (
            PlainTextResponse("x", 503),
            "http://127.0.0.1:{port}/events answered Service Unavailable (503)",
        ),
    ],
)
async def test_a_refusal_is_one_clear_line(net: Network, answer: Any, line: str) -> None:
    net.peer.answers.append(answer)
    result = await publish(net, "a")
    assert result == Result(1, "", f"gateway: {line.format(port=net.proxy.port)}\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected the TYPE of the event"),
        (["a", "{"], "expected DATA in JSON"),
        (["a", "@/nowhere"], "cannot read /nowhere: No such file or directory"),
        (["a", "--channel", "two words"], "expected a channel name"),
        (["a", "1", "--batch"], "with --batch the data comes from stdin"),
        (["a", "--token", "ä"], "expected a token of printable ASCII characters"),
        (["a", "--url", "example.com"], "expected a URL like http://127.0.0.1:8080"),
        (["a", "--retry-for", "-1"], "'--retry-for'"),
    ],
)
def test_wrong_usage_is_one_clear_line_and_exit_code_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["publish", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("gateway: ")
    assert message in err
    assert err.count("\n") == 1
