"""`gateway dead-letters`: on a broker, and on the embedded server of a gateway that runs."""

import asyncio
import io
import json
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from websockets.asyncio.client import ClientConnection, connect

from gateway import Command, handles
from gateway.__main__ import main
from gateway.commands import Status
from tests.cli.terminal import run
from tests.cli.test_run import ready
from tests.servers import KEPT, Broker, free_port
from tests.worker.stage import TYPE, Stage, config_of

pytestmark = pytest.mark.anyio

CONFIG = """
[broker]
url = "{url}"
namespace = "{namespace}"
[[commands]]
path = "/do"
type = "do"
stream = "{stream}"
"""


@handles(TYPE, retries=1, backoff=0)
async def fail(command: Command[Any]) -> None:
    raise LookupError(f"no \x1b[31m{command.data}")


@pytest.fixture
def stage(broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """A log, and a folder with the configuration of a gateway on it, in which the test is."""
    configure(tmp_path, broker, stream="work")
    monkeypatch.chdir(tmp_path)
    return Stage(config_of(broker.config), broker.clients)


def configure(folder: Path, broker: Broker, *, stream: str) -> None:
    text = CONFIG.format(url=broker.config.url, namespace=broker.config.namespace, stream=stream)
    (folder / "gateway.toml").write_text(text)


async def bury(stage: Stage, *data: Any, **more: Any) -> list[str]:
    ids = []
    async with stage.working(fail):
        for each in data:
            ids.append(await stage.post(each, **more))
            await stage.outcome(ids[-1])
    return ids


async def letters(*arguments: str) -> int:
    """Run the command in this process, with an event loop of its own."""
    return await asyncio.to_thread(main, ["dead-letters", *arguments])


Captured = pytest.CaptureFixture[str]


async def test_they_are_listed_newest_first(stage: Stage, capsys: Captured) -> None:
    ids = await bury(stage, 1, 2, 3)
    assert await letters("list") == 0
    out, err = capsys.readouterr()
    head, *rows = out.splitlines()
    assert head.split() == ["AGE", "ID", "TYPE", "STREAM", "REASON", "ATTEMPTS", "ERROR"]
    assert [row.split()[2] for row in rows] == ids[::-1]
    assert rows[0].split()[3:7] == ["do", "work", "attempts-used-up", "2"]
    assert "\x1b" not in out
    assert r"LookupError: no \x1b[31m3" in rows[0]
    assert err == "3 of 3 dead letters.\n"


async def test_they_are_listed_for_programs_and_filtered(stage: Stage, capsys: Captured) -> None:
    await bury(stage, 1)
    undone = await bury(stage, 2, 3, type="undo")
    wanted = ("--type", "undo", "--reason", "no-handler", "--stream", "work")
    assert await letters("list", "--json", *wanted, "--limit", "1") == 0
    out, err = capsys.readouterr()
    (letter,) = [json.loads(line) for line in out.splitlines()]
    assert (letter["id"], letter["type"]) == (undone[1], "undo")
    assert err == ""
    assert await letters("list", "--stream", "other") == 0
    assert capsys.readouterr() == ("", "0 of 3 dead letters.\n")


async def test_one_is_shown_with_all_that_is_known(stage: Stage, capsys: Captured) -> None:
    (id,) = await bury(
        stage, {"sku": "tea"}, key="c-19", traceparent="00-1-2-01", authtype="user", authid="u-1"
    )
    assert await letters("show", id) == 0
    out = capsys.readouterr().out
    text = " ".join(out.split())
    (first, _) = (await stage.broker.dead_letters.get(id)).letter.failures
    for expected in (
        f"{id} do",
        "reason attempts-used-up, after 2 attempts",
        "key c-19",
        "sent by user u-1",
        "traceparent 00-1-2-01",
        f"1 {first.at} LookupError: no",
        '{ "sku": "tea" }',
        "in fail",
    ):
        assert expected in text
    assert text.count("LookupError: no \\x1b[31m") >= 2
    assert "\x1b" not in out
    assert await letters("show", id, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["command"]["data"] == {"sku": "tea"}
    assert [each["attempt"] for each in document["failures"]] == [1, 2]


async def test_what_is_no_command_is_shown_too(stage: Stage, capsys: Captured) -> None:
    await stage.broker.commands.open(["work"])
    await stage.redis.xadd(stage.keys.commands("work", 1), {"e": b"\xff\x1b{"})
    async with stage.working(fail):
        await stage.drained()
    (letter,) = [each async for each in stage.broker.dead_letters.all()]
    assert await letters("show", letter.id) == 0
    out = capsys.readouterr().out
    assert r"b'\xff\x1b{'" in out
    assert await letters("redrive", letter.id) == 1
    assert "its bytes are no command" in capsys.readouterr().err


async def test_some_are_redriven_and_the_others_are_told(stage: Stage, capsys: Captured) -> None:
    first, second, third = await bury(stage, 1, 2, 3)
    assert await letters("redrive", second, "nothing", first, second) == 1
    out, err = capsys.readouterr()
    assert out.split() == [second, first]
    assert err.splitlines() == [
        "gateway: nothing: there is no dead letter 'nothing', or no longer",
        "gateway: 1 of 3 could not be redriven",
    ]
    assert await stage.backlog() == 2
    assert [each.id async for each in stage.broker.dead_letters.all()] == [third]


async def test_all_that_the_filters_leave_are_redriven_the_oldest_first(
    stage: Stage, capsys: Captured
) -> None:
    ids = await bury(stage, 1, 2, 3, key="k")
    (undone,) = await bury(stage, 4, type="undo")
    assert await letters("redrive", "--all", "--type", "do") == 0
    assert capsys.readouterr().out.split() == ids
    assert [each.id async for each in stage.broker.dead_letters.all()] == [undone]


async def test_what_was_in_a_stream_that_is_gone_is_redriven_to_another(
    stage: Stage, broker: Broker, tmp_path: Path, capsys: Captured
) -> None:
    (id,) = await bury(stage, 1)
    (tmp_path / "later").mkdir()
    configure(tmp_path / "later", broker, stream="other")
    assert await letters("redrive", id, "--config", "later") == 1
    assert "the streams are: other" in capsys.readouterr().err
    assert await letters("redrive", id, "--config", "later/gateway.toml", "--to", "other") == 0
    assert capsys.readouterr().out.split() == [id]


async def test_one_is_discarded_without_asking(stage: Stage, capsys: Captured) -> None:
    first, second = await bury(stage, 1, 2)
    assert await letters("discard", first) == 0
    assert capsys.readouterr().out.split() == [first]
    assert [each.id async for each in stage.broker.dead_letters.all()] == [second]
    assert await letters("discard", first) == 1


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stdin", "arguments", "code", "left"),
    [
        (io.StringIO("y\n"), (), 2, 3),
        (Terminal("n\n"), (), 1, 3),
        (Terminal(""), (), 130, 3),
        (Terminal("y\n"), (), 0, 0),
        (io.StringIO(), ("--yes",), 0, 0),
        (io.StringIO(), ("--limit", "1"), 0, 2),
    ],
    ids=["no terminal", "no", "no answer", "yes", "--yes", "just one"],
)
async def test_many_are_discarded_when_it_is_agreed(
    stage: Stage,
    capsys: Captured,
    monkeypatch: pytest.MonkeyPatch,
    stdin: io.StringIO,
    arguments: tuple[str, ...],
    code: int,
    left: int,
) -> None:
    await bury(stage, 1, 2, 3)
    stdin.seek(0)
    monkeypatch.setattr("sys.stdin", stdin)
    assert await letters("discard", "--all", *arguments) == code
    out, err = capsys.readouterr()
    assert len(out.split()) == 3 - left
    assert ("3 dead letters" in err) == (not arguments)
    assert await stage.broker.dead_letters.count() == left


@pytest.mark.parametrize(
    "arguments",
    [
        ("list", "--reason", "bad-mood"),
        ("redrive",),
        ("discard",),
        ("redrive", "--all", "x"),
        ("discard", "x", "--type", "do"),
        ("list", "--limit", "0"),
        ("list", "--config", "nowhere"),
    ],
)
async def test_wrong_usage_is_exit_code_2(
    stage: Stage, arguments: tuple[str, ...], capsys: Captured
) -> None:
    assert await letters(*arguments) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)


def test_a_broker_that_cannot_be_had_is_exit_code_3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["dead-letters", "list"]
    assert main(command) == 3  # nothing was ever run in this folder, and nothing is made
    assert capsys.readouterr().err.startswith(
        f"gateway: there is no log in {tmp_path / '.gateway'}; --data-dir says"
    )
    assert list(tmp_path.iterdir()) == []
    url = f"redis://127.0.0.1:{free_port()}"
    (tmp_path / "gateway.toml").write_text(f'[broker]\nurl = "{url}"\n')
    assert main(command) == 3


# End to end: a gateway with its embedded server, a subscriber, and an operator beside it

SHOP = """
[server]
console = false
[worker]
handlers = ["shop"]
[admin]
tokens = ["operator-operator"]
[[commands]]
path = "/orders"
type = "order.place"
stream = "orders"
key = "data.customer"
"""

HANDLERS = """
from pathlib import Path

from gateway import Rejected, handles


@handles("order.place", retries=1, backoff=0)
async def place(command):
    if command.data["qty"] == 0:
        raise Rejected("nothing was ordered")
    if not Path("open").exists():
        raise LookupError("the shop is closed")
"""


OPERATOR = "operator-operator"


@pytest.mark.parametrize("remote", [False, True], ids=["broker", "url"])
async def test_the_originator_hears_of_failure_dead_letter_and_redrive(
    short_dir: Path, remote: bool
) -> None:
    (short_dir / "gateway.toml").write_text(SHOP)
    (short_dir / "shop.py").write_text(HANDLERS)
    async with (
        ready("run", "--port", "0", cwd=short_dir) as gateway,
        httpx.AsyncClient(base_url=gateway.url, timeout=30, limits=KEPT) as client,
        connect(f"{gateway.url.replace('http', 'ws')}/ws", proxy=None) as socket,
    ):
        failed = await place(client, {"customer": "c", "qty": 0})
        assert await life(socket, failed) == ["accepted", "started", "failed"]
        order = await place(client, {"customer": "c", "qty": 1})
        told = await life(socket, order)
        assert told == ["accepted", "started", "retrying", "started", "dead-lettered"]

        where = ["--url", gateway.url, "--token", OPERATOR] if remote else []
        listed = await run("dead-letters", "list", "--json", *where, cwd=short_dir)
        assert [json.loads(line)["id"] for line in listed.lines] == [order]
        listed = await run("dead-letters", "list", "--reason", "bad-data", *where, cwd=short_dir)
        assert (listed.code, listed.lines, listed.err) == (0, [], "0 of 1 dead letters.\n")
        shown = await run("dead-letters", "show", order, "--json", *where, cwd=short_dir)
        letter = json.loads(shown.out)
        assert letter["command"]["data"] == {"customer": "c", "qty": 1}
        assert "the shop is closed" in letter["error"]["traceback"]
        (short_dir / "open").touch()
        redriven = await run("dead-letters", "redrive", "none", order, *where, cwd=short_dir)
        assert (redriven.code, redriven.lines) == (1, [order])
        assert "none: " in redriven.err
        assert "1 of 2 could not be redriven" in redriven.err
        assert await hear(socket, order, "succeeded") == ["accepted", "started", "succeeded"]
        status = (await client.get(f"/commands/{order}")).json()
        assert (status["status"], status["attempts"]) == (Status.SUCCEEDED, 3)
        shows = {"authorization": f"Bearer {OPERATOR}"}
        figures = await client.get("/admin/streams", headers=shows)
        assert figures.json()["dead_letters"] == 0
        assert (await gateway.stopped()).code == 0


async def place(client: httpx.AsyncClient, data: dict[str, Any]) -> str:
    response = await client.post("/orders", json=data)
    assert response.status_code == 202
    id: str = response.json()["id"]
    return id


async def life(socket: ClientConnection, id: str) -> list[str]:
    """Follow a command from its beginning to its end, and return what was told."""
    subscribe = {"channel": f"commands:{id}", "after": "earliest"}
    await socket.send(msgspec.json.encode({"id": 1, "subscribe": subscribe}).decode())
    return await hear(socket, id, "failed", "dead-lettered")


async def hear(socket: ClientConnection, id: str, *last: str) -> list[str]:
    told: list[str] = []
    async with asyncio.timeout(30):
        while not told or told[-1] not in last:
            frame = json.loads(await socket.recv())
            if "event" in frame and frame["event"]["subject"] == id:
                assert frame["event"]["channel"] == f"commands:{id}"
                told.append(frame["event"]["type"].removeprefix("command."))
    return told
