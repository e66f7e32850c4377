"""Logs as people and machines read them."""

import io
import json
import logging
import re
import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from gateway.telemetry.logs import ACCESS, QUIET, configure

LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} (DEBUG|INFO|WARNING|ERROR) +(.*)")


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """Leave no trace of a configuration, which is the whole process's."""
    names = ("", ACCESS, *QUIET)
    levels = [logging.getLogger(name).level for name in names]
    handlers = logging.getLogger().handlers[:]
    access = logging.getLogger(ACCESS)
    spread, access.propagate = access.propagate, True  # a server without access log cuts it off
    yield
    access.propagate = spread
    logging.captureWarnings(False)
    logging.getLogger().handlers[:] = handlers
    for name, level in zip(names, levels, strict=True):
        logging.getLogger(name).setLevel(level)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def text(level: str = "info", *, requests: bool = False) -> io.StringIO:
    stream = io.StringIO()
    configure(level=level, format="text", requests=requests, stream=stream)
    return stream


def entries(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def machine(*, requests: bool = False) -> io.StringIO:
    stream = io.StringIO()
    configure(level="info", format="json", requests=requests, stream=stream)
    return stream


logger = logging.getLogger("gateway.some.module")


def test_a_line_has_time_level_and_message() -> None:
    stream = text()
    logger.warning("the broker is %s", "away")
    found = LINE.fullmatch(stream.getvalue().rstrip("\n"))
    assert found
    assert found.groups() == ("WARNING", "the broker is away")


@pytest.mark.parametrize(
    ("level", "told"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_the_level_is_the_least_that_is_told(level: str, told: list[str]) -> None:
    stream = text(level)
    for name in ("debug", "info", "warning", "error"):
        logging.getLogger("handlers").log(logging.getLevelNamesMapping()[name.upper()], "%s", name)
    assert [line.split()[-1] for line in stream.getvalue().splitlines()] == told


def test_of_libraries_only_warnings_are_told_unless_one_debugs() -> None:
    stream = text()
    for name in QUIET:
        logging.getLogger(name).info("chatter")
        logging.getLogger(name).warning("news of %s", name)
    assert "chatter" not in stream.getvalue()
    assert stream.getvalue().count("news of") == len(QUIET)
    stream = text("debug")
    logging.getLogger("httpx").info("chatter")
    assert "chatter" in stream.getvalue()


def test_what_a_stranger_sends_begins_no_line_of_its_own_and_moves_no_cursor() -> None:
    stream = text()
    logger.info("no path %s", "/x\n2026-01-01 00:00:00.000 ERROR forged\r\x1b[2J")
    first, second = stream.getvalue().splitlines()
    assert LINE.fullmatch(first)
    assert second == r"    2026-01-01 00:00:00.000 ERROR forged\r\x1b[2J"


def test_a_traceback_is_indented_below_its_message() -> None:
    stream = text()
    try:
        raise ValueError("boom")
    except ValueError:
        logger.exception("it failed")
    first, *rest = stream.getvalue().splitlines()
    assert first.endswith("ERROR   it failed")
    assert rest[0] == "    Traceback (most recent call last):"
    assert rest[-1] == "    ValueError: boom"
    assert all(line.startswith("    ") for line in rest)


def test_only_a_terminal_gets_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)

    def written() -> str:
        stream = Terminal()
        configure(level="info", format="text", requests=False, stream=stream)
        logger.warning("look")
        return stream.getvalue()

    assert "\x1b[33mWARNING\x1b[0m look" in written()
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in written()
    stream = text()
    logger.warning("look")
    assert "\x1b" not in stream.getvalue()


def test_machines_get_one_object_a_line() -> None:
    stream = machine()
    logger.info("two\nlines of %s", "a stranger")
    (entry,) = entries(stream)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", entry.pop("time"))
    assert isinstance(entry.pop("process"), int)
    assert entry == {
        "level": "info",
        "logger": "gateway.some.module",
        "message": "two\nlines of a stranger",
    }


def test_machines_get_tracebacks_and_extras_as_members() -> None:
    stream = machine()
    try:
        raise ValueError("boom")
    except ValueError:
        logger.exception("it failed", extra={"order": 5, "shop": object, "level": "mine"})
    (entry,) = entries(stream)
    assert entry["message"] == "it failed"
    assert entry["exception"].endswith("ValueError: boom")
    assert (entry["order"], entry["shop"]) == (5, "<class 'object'>")
    assert entry["level"] == "error"


def test_requests_are_told_only_if_wanted_and_to_machines_in_parts() -> None:
    request = ('%s - "%s %s HTTP/%s" %d', "127.0.0.1:5", "POST", "/orders", "1.1", 202)
    for configured in (text, machine, partial(text, "debug")):
        stream = configured()
        logging.getLogger(ACCESS).info(*request)
        assert stream.getvalue() == ""
    stream = text("warning", requests=True)
    logging.getLogger(ACCESS).info(*request)
    assert stream.getvalue().endswith('INFO    127.0.0.1:5 - "POST /orders HTTP/1.1" 202\n')
    stream = machine(requests=True)
    logging.getLogger(ACCESS).info(*request)
    (entry,) = entries(stream)
    told = {name: entry[name] for name in ("client", "method", "path", "status")}
    assert told == {"client": "127.0.0.1:5", "method": "POST", "path": "/orders", "status": 202}


def test_warnings_of_python_are_told_like_the_rest() -> None:
    stream = machine()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("an old name", DeprecationWarning, stacklevel=1)
    (entry,) = entries(stream)
    assert (entry["level"], entry["logger"]) == ("warning", "py.warnings")
    assert "an old name" in entry["message"]


def test_text_that_is_no_unicode_is_told_all_the_same() -> None:
    for configured in (text, machine):
        stream = configured()
        logger.info("a file called %s", "caf\udce9")
        assert "a file called caf" in stream.getvalue()


def test_a_second_configuration_replaces_the_first() -> None:
    first, second = text(), text()
    logger.info("once")
    assert first.getvalue() == ""
    assert second.getvalue().count("once") == 1


def test_a_traceback_can_be_given_where_nothing_is_handled_now() -> None:
    failure = {"traceback": "Traceback …\nValueError: boom", "command": "01A"}
    stream = machine()
    logger.error("attempt 1 failed", extra=failure)
    (entry,) = entries(stream)
    assert entry["message"] == "attempt 1 failed"
    assert entry["exception"] == failure["traceback"]
    assert entry["command"] == "01A"
    assert "traceback" not in entry
    stream = text("info")
    logger.error("attempt 1 failed", extra=failure)
    assert stream.getvalue().splitlines()[-1].strip() == "ValueError: boom"


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_query_of_a_connection_is_told(form: str) -> None:
    stream = io.StringIO()
    configure(level="debug", format=form, requests=True, stream=stream)
    access = ("127.0.0.1:5", "GET", "/sse?channel=a&%74icket=secret", "1.1", 200)
    logging.getLogger(ACCESS).info('%s - "%s %s HTTP/%s" %d', *access)
    accepted = ("127.0.0.1:5", "/ws?ticket=secret")
    logging.getLogger("uvicorn.error").info('%s - "WebSocket %s" [accepted]', *accepted)
    said = stream.getvalue()
    assert "/sse?" in said
    assert "/ws?" in said
    assert "secret" not in said
    assert "ticket" not in said


@pytest.mark.parametrize("name", ["websockets.server", "uvicorn.error"])
def test_no_library_writes_down_frames_and_headers(name: str) -> None:
    stream = text("debug")
    library = logging.getLogger(name)
    assert not library.isEnabledFor(logging.DEBUG)
    library.info("this much is told")
    assert "this much is told" in stream.getvalue()
