"""Dead letters in a terminal: one a line, or all that is known of one."""

import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from rich.console import Console
from rich.text import Text

from gateway.broker.deadletters import DeadLetter, Kept
from gateway.cli.lines import age, printable

HEAD = ("AGE", "ID", "TYPE", "STREAM", "REASON", "ATTEMPTS", "ERROR")

ATTRIBUTES = ("source", "subject", "correlationid", "causationid", "traceparent", "tracestate")
"""Of a command: what is shown of it beside its data and who sent it."""


def print_json_line(document: object) -> None:
    """Print a line for programs."""
    sys.stdout.write(msgspec.json.encode(document).decode() + "\n")


def print_list(letters: Sequence[DeadLetter], *, total: int) -> None:
    """Print a line for each, and on stderr how many there are in all."""
    print_table(HEAD, [_row(letter) for letter in letters])
    sys.stderr.write(f"{len(letters)} of {total} dead letters.\n")


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows below a head, in columns; nothing where there are none."""
    out = Console(highlight=False)
    if not rows:
        return
    lines = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for number, row in enumerate(lines):
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        out.print(Text(line.rstrip(), "" if number else "bold"), soft_wrap=True)


def _row(letter: DeadLetter) -> tuple[str, ...]:
    cells = (letter.id, letter.type, letter.stream, letter.reason, str(letter.attempts))
    happened = age(letter.dead_lettered_at, datetime.now(UTC))
    return (happened, *map(printable, cells), printable(str(letter.error)))


def print_letter(kept: Kept) -> None:
    """Print all that is known of one."""
    out = Console(highlight=False)
    letter, command = kept.letter, kept.document().get("command")
    attributes: dict[str, Any] = msgspec.json.decode(command) if command else {}
    out.print(Text.assemble((printable(letter.id), "bold"), f"  {printable(letter.type)}"))
    for name, value in _facts(letter, attributes):
        out.print(Text.assemble((f"  {name:<14}", "dim"), printable(value)), soft_wrap=True)
    _section(out, "Attempts that failed", _failures(letter))
    if command:
        data = msgspec.json.format(msgspec.json.encode(attributes.get("data"))).decode()
        _section(out, "Data", data.splitlines())
    else:
        _section(out, "Bytes", [repr(kept.envelope)])
    _section(out, "Last error", (letter.error.traceback or str(letter.error)).splitlines())


def _facts(letter: DeadLetter, attributes: dict[str, Any]) -> Iterator[tuple[str, str]]:
    attempts = "1 attempt" if letter.attempts == 1 else f"{letter.attempts} attempts"
    yield "reason", f"{letter.reason}, after {attempts}"
    yield "stream", f"{letter.stream}, partition {letter.partition}"
    if letter.key is not None:
        yield "key", letter.key
    yield "accepted", letter.accepted_at
    ago = age(letter.dead_lettered_at, datetime.now(UTC))
    yield "given up", f"{letter.dead_lettered_at}, {ago} ago"
    if attributes.get("authid"):
        yield "sent by", f"{attributes.get('authtype') or 'principal'} {attributes['authid']}"
    for name in ATTRIBUTES:
        if attributes.get(name):
            yield name, str(attributes[name])


def _failures(letter: DeadLetter) -> Iterator[str]:
    for each in letter.failures:
        yield f"{each.attempt:>3}  {each.at}  {each.type}: {each.message}"


def _section(out: Console, title: str, lines: Sequence[str] | Iterator[str]) -> None:
    out.print(Text(f"\n{title}", "bold"))
    for line in lines:
        out.print(Text(f"  {printable(line)}"), soft_wrap=True)
