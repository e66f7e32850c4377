"""Secrets: from the file, the environment or files of their own, and never shown by accident."""

import json
import logging
import os
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest

from gateway.__main__ import main
from gateway.broker.address import parse
from gateway.errors import ConfigError
from gateway.policy import load_checked
from gateway.settings import Secret
from gateway.telemetry import logs

URL = "redis://user:hush@example.com:6380/2"
Problems = Callable[..., list[str]]


@pytest.fixture
def problems(tmp_path: Path) -> Problems:
    """Write a file, load it, and return its problems without the folder."""

    def of(text: str, **environ: str) -> list[str]:
        (tmp_path / "gateway.toml").write_text(text)
        with pytest.raises(ConfigError) as caught:
            load_checked(tmp_path, environ)
        return str(caught.value).replace(f"{tmp_path}{os.sep}", "").splitlines()

    return of


def test_secrets_come_from_files_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "url").write_text(f"{URL}\n")
    (tmp_path / "tokens").write_text("sesame-sesame-sesame\r\n\nanother-another-another\n")
    (tmp_path / "gateway.toml").write_text(
        '[broker]\nurl_file = "url"\n[events]\ntokens_file = "tokens"\n'
    )
    admin = tmp_path / "admin"
    admin.write_text("warden-warden-warden")
    config, _ = load_checked(tmp_path, {"GATEWAY_ADMIN_TOKENS_FILE": str(admin)})
    assert config.broker.url
    assert parse(config.broker.url).login["password"] == "hush"
    assert list(config.events.tokens) == ["sesame-sesame-sesame", "another-another-another"]
    assert list(config.admin.tokens) == ["warden-warden-warden"]


def test_a_variable_with_a_file_overrides_the_file(tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").write_text('[events]\ntokens = ["old-old-old-old-old"]\n')
    (tmp_path / "new").write_text("new-new-new-new-new\n")
    config, _ = load_checked(tmp_path, {"GATEWAY_EVENTS_TOKENS_FILE": "new"})
    assert list(config.events.tokens) == ["new-new-new-new-new"]


def test_what_is_wrong_in_a_file_of_secrets_is_told_with_its_line_and_not_repeated(
    tmp_path: Path, problems: Problems
) -> None:
    (tmp_path / "tokens").write_text(
        "good-good-good-good\nbad bad bad bad one\n\nworse-worse-worse,one\n"
    )
    (tmp_path / "url").write_text("\nredis://user:hush@host/x\n")
    expected = (
        "expected a token of 16 or more visible characters without a comma but got something else"
    )
    assert sorted(
        problems('[events]\ntokens_file = "tokens"', GATEWAY_BROKER_URL_FILE=str(tmp_path / "url"))
    ) == [
        "GATEWAY_BROKER_URL_FILE: broker.url: expected redis://, rediss://, unix:// or "
        "redis+sentinel:// but redis://user@host/x has a path that is not the number of a database",
        f"tokens:2: events.tokens[1]: {expected}",
        f"tokens:4: events.tokens[2]: {expected}",
    ]


@pytest.mark.parametrize(
    ("text", "report"),
    [
        ('tokens_file = "none"', "cannot read none: No such file or directory"),
        ('tokens_file = "."', "cannot read .: Is a directory"),
        ('tokens_file = "empty"', "empty is empty"),
        ('tokens_file = "binary"', "expected UTF-8 text in binary"),
        ('tokens_file = "large"', "large is larger than 1048576 bytes"),
        ("tokens_file = 5", "expected a path but got 5"),
        (
            'tokens_file = "one"\ntokens = ["bbbbbbbbbbbbbbbb"]',
            "expected this or 'tokens' but got both",
        ),
    ],
)
def test_a_file_of_secrets_that_cannot_be_used_is_reported_where_it_is_named(
    tmp_path: Path, problems: Problems, text: str, report: str
) -> None:
    (tmp_path / "one").write_text("a" * 16)
    (tmp_path / "empty").write_text("\n \n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "large").write_bytes(b"x" * ((1 << 20) + 1))
    (told,) = problems(f"[events]\n{text}\n")
    assert told.startswith("gateway.toml:2: events.tokens_file: ")
    assert told.replace(str(tmp_path), ".").endswith(report)


def test_one_secret_is_one_line(tmp_path: Path, problems: Problems) -> None:
    (tmp_path / "url").write_text(f"{URL}\n{URL}\n")
    (told,) = problems('[broker]\nurl_file = "url"')
    assert told == "gateway.toml:2: broker.url_file: expected one line in url but got 2"


def test_a_secret_in_a_variable_and_in_a_file_is_a_mistake(
    tmp_path: Path, problems: Problems
) -> None:
    (tmp_path / "one").write_text("a" * 16)
    (told,) = problems(
        "", GATEWAY_EVENTS_TOKENS="a" * 16, GATEWAY_EVENTS_TOKENS_FILE=str(tmp_path / "one")
    )
    assert told == (
        "GATEWAY_EVENTS_TOKENS_FILE: events.tokens: expected this variable or "
        "GATEWAY_EVENTS_TOKENS but got both"
    )


def test_only_what_is_secret_can_be_in_a_file_of_its_own(problems: Problems) -> None:
    (told,) = problems('[server]\nhost_file = "host"')
    assert told.startswith("gateway.toml:2: server.host_file: unknown key")
    (told,) = problems("", GATEWAY_SERVER_HOST_FILE="host")
    assert told.startswith("GATEWAY_SERVER_HOST_FILE: unknown variable")


def test_whoever_prints_a_secret_gets_stars() -> None:
    secret = Secret("sesame")
    for shown in (repr(secret), str(secret), f"{secret}", f"{secret!r:>9}", "%s" % secret):  # noqa: UP031
        assert "***" in shown
        assert "sesame" not in shown
    assert secret == "sesame"
    assert secret.encode() == b"sesame"


@pytest.mark.parametrize("arguments", [["check"], ["check", "--json"]])
def test_nothing_that_is_told_of_a_configuration_holds_its_secrets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    (tmp_path / "tokens").write_text("sesame-sesame-sesame\n")
    text = f'[broker]\nurl = "{URL}"\n[events]\ntokens_file = "tokens"\n'
    (tmp_path / "gateway.toml").write_text(text + '[admin]\ntokens = ["warden-warden-warden"]\n')
    config, policy = load_checked(tmp_path, {})
    assert main([*arguments, str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    for told in (out, err, repr(config), str(config), repr(policy)):
        assert not any(secret in told for secret in ("hush", "sesame", "warden"))


@pytest.mark.parametrize("format", ["text", "json"])
def test_credentials_in_addresses_do_not_reach_the_log(
    format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A server in this process that was to tell of no request has cut it off.
    monkeypatch.setattr(logging.getLogger("uvicorn.access"), "propagate", True)
    stream = StringIO()
    before = logging.getLogger().handlers[:]
    try:
        logs.configure(level="info", format=format, requests=True, stream=stream)
        arguments = ("1.2.3.4:5", "GET", "/sse?channel=a&ticket=sesame&b=c", "1.1", 200)
        logging.getLogger("uvicorn.access").info('%s - "%s %s HTTP/%s" %d', *arguments)
        logging.getLogger("gateway").error(
            "no: /ws?access_token=sesame", exc_info=ValueError("?key=sesame")
        )
    finally:
        logging.getLogger().handlers[:] = before
    assert "sesame" not in stream.getvalue()
    assert stream.getvalue().count("***") == 2
    if format == "json":
        first = json.loads(stream.getvalue().splitlines()[0])
        assert first["path"] == "/sse?…"
