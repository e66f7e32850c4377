"""Events and notices as lines in a terminal. Text of strangers never reaches it unescaped."""

import sys
from datetime import UTC, datetime
from typing import Any

import msgspec
from rich.console import Console
from rich.text import Text

from gateway.client import Disconnected, Notice, Received

CHANNEL_COLORS = ("cyan", "magenta", "green", "blue", "yellow", "bright_cyan", "bright_magenta")
TYPE_WIDTH = 18
"""Columns: most types fit, and the data still begins in the same column."""


class _Stdout(Console):
    def on_broken_pipe(self) -> None:
        """Let `BrokenPipeError` through: rich would exit with 1, and it is no failure."""
        raise


class ReadableLines:
    """For people: time, age, channel, type, subject and data in columns."""

    def __init__(self, channels: list[str]) -> None:
        self._out = _Stdout(highlight=False)
        self._width = max(map(len, channels))
        self._colors = dict(zip(channels, CHANNEL_COLORS * len(channels), strict=False))
        self._err = Console(stderr=True, highlight=False)

    def event(self, received: Received) -> None:
        """Print the event in a line, cut to the width of the terminal if it is one."""
        arrived = datetime.now(UTC)
        line = Text.assemble(
            (f"{arrived.astimezone():%H:%M:%S}.{arrived.microsecond // 1000:03}", "dim"),
            (f" {age(received.event.get('time'), arrived):>8} ", "dim"),
            (f" {received.channel:<{self._width}} ", self._colors.get(received.channel, "")),
            (f" {printable(received.type):<{TYPE_WIDTH}} ", "bold"),
        )
        if subject := received.event.get("subject"):
            line.append(f" {printable(str(subject))} ", "italic")
        line.append(" " + data_of(received.event))
        if self._out.is_terminal:
            self._out.print(line, no_wrap=True, overflow="ellipsis", crop=True)
        else:
            self._out.print(line, soft_wrap=True)

    def notice(self, notice: Notice) -> None:
        """Say on stderr what became of a subscription or of the connection."""
        _notice(self._err, notice)


class JsonLines:
    """For programs: the CloudEvents as they came, one a line."""

    def __init__(self) -> None:
        self._out = sys.stdout
        self._err = Console(stderr=True, highlight=False)

    def event(self, received: Received) -> None:
        """Print the CloudEvent in a line, and at once."""
        encoded = received.encoded
        if b"\n" in encoded or b"\r" in encoded:
            encoded = msgspec.json.format(encoded, indent=-1)
        self._out.write(encoded.decode() + "\n")
        self._out.flush()

    def notice(self, notice: Notice) -> None:
        """Say on stderr what became of a subscription or of the connection."""
        _notice(self._err, notice)


def _notice(console: Console, notice: Notice) -> None:
    if isinstance(notice, Disconnected):
        text = f"Disconnected: {printable(notice.reason)}. Trying again in {notice.retry_in:.1f} s."
        console.print(Text(text, "yellow"), soft_wrap=True)
    elif notice.recovered:
        text = f"Subscribed to {printable(notice.channel)} at {printable(notice.position)}."
        console.print(Text(text, "dim"), soft_wrap=True)
    else:
        text = (
            f"EVENTS ARE MISSING on {printable(notice.channel)} (recovered: false): some of those "
            "after your position are no longer kept. What is still kept follows."
        )
        console.print(Text(text, "bold white on red"), soft_wrap=True)


def age(time: Any, arrived: datetime) -> str:
    """How old an event was when it arrived, by its `time`: `3 ms`, `1.2 s`, `5 min`, `2 h`."""
    try:
        happened = datetime.fromisoformat(time)
        seconds = (arrived - happened).total_seconds()
    except (TypeError, ValueError):  # no time, or none with a time zone
        return ""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h"


def data_of(event: dict[str, Any]) -> str:
    """The event's data in one line of JSON, in which nothing can move the cursor."""
    if "data" in event:
        return printable(msgspec.json.encode(event["data"]).decode())
    return "(binary data)" if "data_base64" in event else ""


def printable(text: str) -> str:
    """`text` with its control characters spelled out: an event must not steer the terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
