"""`gateway publish`: post events to a gateway."""

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import IO, Annotated

import msgspec
import typer

from gateway.cli.failures import ExitCode, Failure
from gateway.cli.options import Token, Url, gateway_url, read_argument_file, read_token
from gateway.events import SPEC_VERSION, Event, encode, new_id, now, with_channel

SOURCE = "/gateway/cli"

READ_SIZE = 64 << 10
"""Bytes read from stdin at a time: whatever is there by then is posted together, so that a slow
producer's events go out as they come."""

MAX_BODY = 512 << 10
"""Bytes of events in one request. The default limit of a gateway is 1 MiB."""

EXAMPLES = """
[bold]Examples[/]

gateway publish order.shipped '{"id": 7}' --channel orders

gateway publish order.shipped @order.json --subject 7 --token @secret.txt

gateway publish sensor.read --batch < readings.ndjson

gateway subscribe orders --json | gateway publish --batch --url http://other:8080
"""


@dataclass(frozen=True, kw_only=True)
class Form:
    """What the command line says about every event that it publishes."""

    type: str | None
    channel: str | None
    subject: str | None
    source: str

    def fill(self, data: bytes | None) -> bytes:
        """Return the CloudEvent with this data. Raises `ValueError` if that is no JSON."""
        event = Event(type=self.type or "", subject=self.subject, source=self.source)
        if data is not None:
            msgspec.json.decode(data)
            event.data = msgspec.Raw(data.strip())
        encoded = encode(event)
        return with_channel(encoded, self.channel) if self.channel else encoded

    def complete(self, line: bytes) -> bytes:
        """Return the CloudEvent in `line`, with what it lacks. `ValueError` if it is none."""
        given = msgspec.json.decode(line, type=dict[str, msgspec.Raw])
        event = {"specversion": SPEC_VERSION, "id": new_id(), "source": self.source, "time": now()}
        completed: dict[str, object] = {**event, **given}
        options = {"channel": self.channel, "subject": self.subject}
        completed.update((name, value) for name, value in options.items() if value)
        if not msgspec.json.decode(given.get("type", b'""'), type=str):
            raise ValueError("expected a CloudEvent with a type")
        return msgspec.json.encode(completed)

    def line(self, line: bytes) -> bytes:
        """Return the event of one line of a batch: its data, or a whole CloudEvent."""
        return self.fill(line) if self.type else self.complete(line)


def publish(
    type_: Annotated[
        str | None,
        typer.Argument(
            metavar="TYPE",
            help="The event's type, such as order.shipped. "
            "With --batch it may be left out: each line is then a CloudEvent of its own.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Argument(
            metavar="DATA",
            help="Its data: JSON, or @FILE to read it from a file, or - to read it from stdin.",
            show_default=False,
        ),
    ] = None,
    channel: Annotated[
        str | None,
        typer.Option(
            help="The channel it goes to. Without one, the gateway's feeds decide.",
            rich_help_panel="The event",
            show_default=False,
        ),
    ] = None,
    subject: Annotated[
        str | None,
        typer.Option(help="What it is about.", rich_help_panel="The event", show_default=False),
    ] = None,
    source: Annotated[
        str, typer.Option(help="Where it comes from.", rich_help_panel="The event")
    ] = SOURCE,
    batch: Annotated[
        bool,
        typer.Option(
            "--batch",
            help="Read one event from each line of stdin: its data, or without TYPE a CloudEvent.",
            rich_help_panel="The event",
        ),
    ] = False,
    url: Url = None,
    token: Token = None,
    retry_for: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            min=0,
            help="How long to try again when the gateway is not there, or cannot take events yet. "
            "Nothing else is tried again, because it might be published twice.",
            rich_help_panel="The gateway",
        ),
    ] = 10.0,
) -> None:
    """Publish events: facts, for whoever is subscribed. Prints their ids."""
    if batch and data is not None:
        raise Failure("with --batch the data comes from stdin: leave DATA out", code=ExitCode.USAGE)
    if not batch and not type_:
        raise Failure("expected the TYPE of the event", code=ExitCode.USAGE)
    form = Form(type=type_, channel=_checked(channel), subject=subject, source=source)
    bodies = _batches(sys.stdin.buffer, form) if batch else iter([_single(form, data)])
    _post(bodies, batch=batch, url=gateway_url(url), token=read_token(token), retry_for=retry_for)


def _post(
    bodies: Iterator[bytes], *, batch: bool, url: str, token: str | None, retry_for: float
) -> None:
    from gateway.cli.posting import BATCH, STRUCTURED, Publisher

    try:
        publisher = Publisher(url, token=token, retry_for=retry_for, tell=_tell)
    except ValueError as error:
        raise Failure(str(error), code=ExitCode.USAGE) from error
    with publisher:
        for body in bodies:
            for event_id in publisher.post(body, BATCH if batch else STRUCTURED):
                typer.echo(event_id)


def _checked(channel: str | None) -> str | None:
    from gateway.channels import check_name
    from gateway.errors import BadRequest

    try:
        return None if channel is None else check_name(channel)
    except BadRequest as error:
        raise Failure(error.detail, code=ExitCode.USAGE) from error


def _single(form: Form, data: str | None) -> bytes:
    if data is None:
        return form.fill(None)
    if data == "-":
        given = sys.stdin.buffer.read()
    elif data.startswith("@"):
        given = read_argument_file(data)
    else:
        given = os.fsencode(data)
    try:
        return form.fill(given)
    except ValueError as error:
        raise Failure(f"expected DATA in JSON: {error}", code=ExitCode.USAGE) from error


def _batches(stdin: IO[bytes], form: Form) -> Iterator[bytes]:
    """Give out the bodies of the requests that stdin makes, in the JSON batch format.

    A line that is no event ends it, after everything before that line has been given out.
    """
    for lines in _lines(stdin):
        events: list[bytes] = []
        size = 0
        for number, line in lines:
            if not line.strip():
                continue
            try:
                event = form.line(line)
            except ValueError as error:
                yield from _body(events)
                text = f"stdin:{number}: {error} (nothing from here on was published)"
                raise Failure(text) from error
            if size + len(event) > MAX_BODY:
                yield from _body(events)
                events, size = [], 0
            events.append(event)
            size += len(event)
        yield from _body(events)


def _body(events: list[bytes]) -> Iterator[bytes]:
    if events:
        yield b"[" + b",".join(events) + b"]"


def _lines(stdin: IO[bytes]) -> Iterator[list[tuple[int, bytes]]]:
    """Give out the numbered lines of stdin, as many at a time as have come."""
    read = getattr(stdin, "read1", stdin.read)
    numbers = count(1)
    rest = b""
    while chunk := read(READ_SIZE):
        *lines, rest = (rest + chunk).split(b"\n")
        yield [(next(numbers), line) for line in lines]
    yield [(next(numbers), rest)]


def _tell(text: str) -> None:
    typer.echo(text, err=True)
