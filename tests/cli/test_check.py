"""`gateway check`: every problem at once, with file and line; or what is configured."""

import json
from pathlib import Path

import pytest

from gateway.__main__ import main
from gateway.cli.report import duration
from gateway.resources import example_config

WRONG = """
[server]
prot = 3
[worker]
handlers = ["wrong_handlers"]
[[commands]]
path = "/a"
type = "a.b"
stream = "or ders"
[[feeds]]
type = "x"
channels = ["1 +"]
"""

WRONG_HANDLERS = """
from gateway import handles

@handles("a.b")
def takes_nothing(): ...
"""

SECRETIVE = """
[broker]
url = "redis://user:hush@example.com:6380/2"
[worker]
handlers = ["idle_handlers"]
[events]
tokens = ["sesame-sesame-sesame"]
[[commands]]
path = "/a"
type = "a.b"
stream = "a"
routes = [{ when = "data.x == [1][0]", stream = "b" }]
"""

IDLE_HANDLERS = """
from gateway import handles

@handles("other", retries=0, timeout=None)
def other(command): ...
"""


LIMITED = """
[server]
trusted_proxies = ["10.0.0.0/8"]
[[commands]]
path = "/a"
type = "a.b"
stream = "a"
[[limits]]
name = "orders"
per = ["principal", "command"]
rate = "600/m"
commands = ["a.b"]
queue = { size = 5, wait = "2s" }
when = "principal.id != 'root'"
[quotas]
connections_per_ip = 20
"""


SECURED = """
[[auth.jwt]]
issuer = "https://id.example"
audience = ["shop"]
secret = "0123456789abcdef0123456789abcdef"
[[commands]]
path = "/a"
type = "a.b"
stream = "a"
allow = "'clerk' in principal.roles"
[[commands]]
path = "/b"
type = "b"
stream = "b"
[[channels]]
pattern = "own:{id}"
history = { allow = "'auditor' in principal.roles" }
subscribe = "principal.id == id"
publish = "'producer' in principal.roles"
[[channels]]
pattern = "closed"
"""


@pytest.fixture
def wrong(tmp_path: Path) -> Path:
    (tmp_path / "gateway.toml").write_text(WRONG)
    (tmp_path / "wrong_handlers.py").write_text(WRONG_HANDLERS)
    return tmp_path


def test_every_problem_is_a_line_with_file_and_line(
    wrong: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", str(wrong)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    file = wrong / "gateway.toml"
    beginnings = [
        f"{file}:3: server.prot: unknown key",
        f"{file}:9: commands[0].stream: expected",
        f"{file}:12: feeds[0].channels[0]: ",
        f"{wrong / 'wrong_handlers.py'}:4: expected takes_nothing to take one command",
    ]
    for line, beginning in zip(err.splitlines(), beginnings, strict=True):
        assert line.startswith(beginning)


def test_problems_for_programs(wrong: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(wrong), "--json"]) == 2
    out, err = capsys.readouterr()
    assert err == ""
    problems = json.loads(out)["problems"]
    assert [problem["line"] for problem in problems] == [3, 9, 12, 4]
    assert problems[0]["message"].startswith("server.prot: unknown key")


def test_the_configuration_in_this_folder_is_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["check"]) == 2
    expected = f"gateway.toml: there is no such file; looked for {tmp_path / 'gateway.toml'}\n"
    assert capsys.readouterr().err == expected
    (tmp_path / "gateway.toml").write_text("")
    assert main(["check"]) == 0
    assert capsys.readouterr().out.startswith("gateway.toml is fine.\n")


def test_the_example_is_fine_and_all_of_it_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(example_config())]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    text = " ".join(out.split())
    for expected in (
        "Broker embedded, in ",
        "Server http://127.0.0.1:8080",
        "dashboard at /demo/",
        "POST /orders order.place",
        "stream orders.priority when has(data.tier) && data.tier == 'premium'",
        "stream orders otherwise",
        "key data.customer",
        "allow anybody",
        "schemas/order.place.json",
        "handler place_order in ",
        "orders:{customer} history: 200 events for 1d subscribe: anybody",
        "order.* → 'orders', 'orders:' + data.customer",
    ):
        assert expected in text
    assert "Warning" not in text


def test_the_same_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--json", str(example_config())]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [each["path"] for each in document["commands"]] == ["/orders", "/orders/{order}/ship"]
    (place, _) = document["worker"]["handlers"]
    assert (place["type"], place["name"]) == ("order.place", "place_order")
    assert document["warnings"] == []


def test_no_secret_is_printed_and_what_looks_unintended_is_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gateway.toml").write_text(SECRETIVE)
    (tmp_path / "idle_handlers.py").write_text(IDLE_HANDLERS)
    assert main(["check", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "redis://example.com:6380/2" in out
    assert "hush" not in out
    assert "sesame" not in out
    assert "stream b when data.x == [1][0]" in " ".join(out.split())
    assert "Warning: gateway.toml: no handler here handles 'a.b'" in out
    assert (
        f"Warning: {tmp_path / 'idle_handlers.py'}:4: no [[commands]] has the type 'other'" in out
    )


def test_the_environment_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gateway.toml").write_text("")
    monkeypatch.setenv("GATEWAY_SERVER_PORT", "9999")
    assert main(["check", str(tmp_path)]) == 0
    assert "http://127.0.0.1:9999" in capsys.readouterr().out
    monkeypatch.setenv("GATEWAY_SERVER_PORT", "many")
    assert main(["check", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(
        "GATEWAY_SERVER_PORT: server.port: expected a whole number"
    )


def test_durations_are_written_as_in_the_file() -> None:
    assert [duration(each) for each in (0.25, 10, 90, 300, 3600, 86_400, 604_800)] == [
        "250ms",
        "10s",
        "90s",
        "5m",
        "1h",
        "1d",
        "7d",
    ]


def test_limits_and_quotas_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "gateway.toml").write_text(LIMITED)
    assert main(["check", str(tmp_path)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "orders 600/m commands (a.b) per principal and command, 10 at once," in said
    assert "then 5 wait for up to 2s, when principal.id != 'root'" in said
    assert "connections_per_ip 20 at a time" in said
    assert "each address 200/s of a process; behind proxies at 10.0.0.0/8" in said


def test_who_may_do_what_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "gateway.toml").write_text(SECURED)
    assert main(["check", str(tmp_path)]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for expected in (
        "whoever a channel's rule lets may publish",
        "stream a allow 'clerk' in principal.roles",
        "stream b allow nobody, for want of a rule",
        "subscribe: principal.id == id publish: 'producer' in principal.roles"
        " history.allow: 'auditor' in principal.roles",
        "closed history: none subscribe: nobody, for want of a rule",
    ):
        assert expected in text
