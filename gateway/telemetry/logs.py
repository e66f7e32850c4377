"""Logs: what a process says on stderr, in lines for people or in JSON for machines.

Everything goes through the standard library's `logging`, so what handlers log is told as well.
"""

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

from rich.console import Console

QUIET = ("asyncio", "httpcore", "httpx", "sse_starlette", "uvicorn", "websockets")
"""Libraries of which nothing less than a warning is told, unless `level` is `debug`."""

ACCESS = "uvicorn.access"

SERVER = "uvicorn.error"

TALKATIVE = ("websockets", SERVER)
"""Libraries that write down every frame and header at level `debug`: tokens are among them."""

_WITH_TICKET = re.compile(r"(/(?:sse|ws)\?)\S*")

_COLOURS = {logging.WARNING: "\x1b[33m", logging.ERROR: "\x1b[31m", logging.CRITICAL: "\x1b[31m"}
_PLAIN = "\x1b[0m"
_BUILT_IN = frozenset(logging.makeLogRecord({}).__dict__) | {
    *("message", "asctime", "color_message", "traceback")
}
_INDENT = "\n    "


def configure(*, level: str, format: str, requests: bool, stream: TextIO | None = None) -> None:
    """Have everything that is logged written to `stream`, or to stderr.

    `level` is the least that is told: `debug`, `info`, `warning` or `error`. `format` is `text`, or
    `json` for one object a line. With `requests`, each HTTP request is told too. May be called
    again, which replaces what was set up before.
    """
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream)
    terminal = Console(file=stream)  # knows of NO_COLOR, and which terminals are dumb
    colours = terminal.color_system is not None and not terminal.no_color
    handler.setFormatter(JSONLines() if format == "json" else TextLines(colours=colours))
    number = logging.getLevelNamesMapping()[level.upper()]
    root = logging.getLogger()
    for earlier in root.handlers[:]:
        root.removeHandler(earlier)
    root.addHandler(handler)
    root.setLevel(number)
    for name in QUIET:
        logging.getLogger(name).setLevel(number if level == "debug" else logging.WARNING)
    for name in TALKATIVE:
        quiet = logging.INFO if level == "debug" else logging.WARNING
        logging.getLogger(name).setLevel(quiet)
    for name in (ACCESS, SERVER):
        logging.getLogger(name).addFilter(_without_tickets)
    logging.getLogger(ACCESS).setLevel(logging.INFO if requests else logging.CRITICAL)
    logging.captureWarnings(True)


def _without_tickets(record: logging.LogRecord) -> bool:
    """Take the queries of connections out of what the server says: tickets are among them.

    All of a query, because names can be written in many ways there (`%74icket`).
    """
    if isinstance(record.args, tuple):
        record.args = tuple(
            _WITH_TICKET.sub(r"\1…", each) if isinstance(each, str) else each
            for each in record.args
        )
    return True


class TextLines(logging.Formatter):
    """One entry a line, beginning with its time; what is longer than a line is indented.

    Text of strangers is part of messages. It can neither begin an entry of its own (CWE-117) nor
    send escape sequences to a terminal.
    """

    def __init__(self, *, colours: bool) -> None:
        super().__init__()
        self._colours = colours

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created).astimezone()
        level = f"{record.levelname:<7}"
        if self._colours and record.levelno in _COLOURS:
            level = _COLOURS[record.levelno] + level + _PLAIN
        told = _redacted(f"{record.getMessage()}\n{_traceback(record)}").rstrip("\n")
        text = _INDENT.join(map(_printable, told.split("\n")))
        return f"{time:%Y-%m-%d %H:%M:%S}.{time.microsecond // 1000:03} {level} {text}"


class JSONLines(logging.Formatter):
    """One JSON object a line.

    `time` (RFC 3339, UTC), `level`, `logger`, `message` and `process` are always there; `exception`
    is a traceback; a request has `client`, `method`, `path` and `status`; and what was logged with
    `extra` has members of its own.
    """

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        entry: dict[str, Any] = {
            "time": time.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
            "process": record.process,
        }
        if exception := _traceback(record):
            entry["exception"] = _redacted(exception)
        if record.name == ACCESS and isinstance(record.args, tuple) and len(record.args) == 5:
            client, method, path, _, status = record.args
            entry |= {
                "client": client,
                "method": method,
                "path": _redacted(str(path)),
                "status": status,
            }
        extra = {name: value for name, value in vars(record).items() if name not in _BUILT_IN}
        return json.dumps(extra | entry, default=repr)  # in ASCII, whatever a stranger sent


_CREDENTIAL = re.compile(
    r"([?&](?:access_token|api_key|apikey|authorization|key|ticket|token)=)[^&\s\"']+",
    re.IGNORECASE,
)


def _redacted(text: str) -> str:
    """Return a text without the credentials in the queries of URLs."""
    return _CREDENTIAL.sub(r"\1***", text)


def _message(record: logging.LogRecord) -> str:
    return _redacted(record.getMessage())


def _traceback(record: logging.LogRecord) -> str:
    """The traceback of a line: of what is handled now, or of what it was given as `traceback`."""
    if record.exc_info and not record.exc_text:
        return logging.Formatter().formatException(record.exc_info)
    return record.exc_text or str(vars(record).get("traceback", ""))


def _printable(line: str) -> str:
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in line)
