"""`gateway subscribe`: follow channels in the terminal."""

import asyncio
import os
import shlex
import signal
import sys
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Protocol

import typer

from gateway.cli.failures import ExitCode, Failure
from gateway.cli.options import DEFAULT_URL, Token, Url, gateway_url, read_token

if TYPE_CHECKING:
    from gateway.client import Notice, Positions, Received

EXAMPLES = """
[bold]Examples[/]

gateway subscribe orders

gateway subscribe orders 'orders:c-19' --after earliest

gateway subscribe orders --json --until 10 | jq .data

gateway subscribe orders --sse --url https://push.example.com
"""


def subscribe(
    channels: Annotated[
        list[str],
        typer.Argument(
            metavar="CHANNEL", help="The channels to follow, such as orders or orders:c-19."
        ),
    ],
    after: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[CHANNEL=]POSITION",
            help="Begin after this position, or with [bold]earliest[/]: everything that is kept. "
            "Can be given for each channel. Without it: what happens from now on.",
            rich_help_panel="What to show",
            show_default=False,
        ),
    ] = None,
    until: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Stop after N events.",
            rich_help_panel="What to show",
            show_default=False,
        ),
    ] = None,
    json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="One CloudEvent a line on stdout, for pipes. All else goes to stderr.",
            rich_help_panel="What to show",
        ),
    ] = False,
    url: Url = None,
    token: Token = None,
    sse: Annotated[
        bool,
        typer.Option(
            "--sse",
            help="Over Server-Sent Events instead of WebSocket.",
            rich_help_panel="The gateway",
        ),
    ] = False,
) -> None:
    """Follow channels in the terminal. Comes back by itself when the connection breaks.

    Every event is shown once and in order. Should some be lost for good, that is said. Ctrl-C
    stops, and prints the command with which to go on from there.
    """
    from gateway.cli.lines import JsonLines, ReadableLines

    positions = _positions(channels, after or [])
    if sse:
        _one_position(positions)
    screen: Screen = JsonLines() if json else ReadableLines(positions.channels)
    where = gateway_url(url)
    try:
        asyncio.run(_follow(positions, screen, where, read_token(token), sse=sse, until=until))
    except BrokenPipeError:  # whoever reads our stdout has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    options = ["--url", where] if where != DEFAULT_URL else []
    if token and token.startswith("@"):  # the name of a file; a token itself is not shown again
        options += ["--token", token]
    options += ["--sse"] * sse + ["--json"] * json
    if positions.known():
        command = ["gateway", "subscribe", *positions.channels, *options, *_after(positions)]
        typer.echo(f"Go on with: {shlex.join(command)}", err=True)


class Screen(Protocol):
    """Where events and what happens to the connection are shown."""

    def event(self, received: "Received") -> None:
        """Show an event."""

    def notice(self, notice: "Notice") -> None:
        """Say what became of a subscription or of the connection."""


async def _follow(
    positions: "Positions",
    screen: Screen,
    url: str,
    token: str | None,
    *,
    sse: bool,
    until: int | None,
) -> None:
    """Show events until there were enough, or SIGINT or SIGTERM says so."""
    from gateway.client import NotKnown, Refused, subscribe

    _cancel_on_signals()
    shown = 0
    try:
        events = subscribe(url, positions, sse=sse, token=token, notice=screen.notice)
        async with aclosing(events):
            async for received in events:
                screen.event(received)
                shown += 1
                if shown == until:
                    return
    except asyncio.CancelledError:
        return
    except Refused as error:
        if isinstance(error, NotKnown) and token is None:
            text = "the gateway wants to know who asks: show it a token with --token"
            raise Failure(text) from error
        raise Failure(str(error)) from error
    except ValueError as error:
        raise Failure(str(error), code=ExitCode.USAGE) from error


def _cancel_on_signals() -> None:
    """Let SIGINT and SIGTERM end the current task where it waits: never between receiving an event
    and showing it."""
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)


def _positions(channels: list[str], after: list[str]) -> "Positions":
    from gateway.channels import check_name
    from gateway.client import Positions
    from gateway.errors import BadRequest

    named = {}
    for option in after:
        channel, _, position = option.rpartition("=")
        named[channel] = position
    if "" in named and len(after) > 1:
        text = "expected one --after POSITION, or --after CHANNEL=POSITION for each channel"
        raise Failure(text, code=ExitCode.USAGE)
    try:
        names = [check_name(channel) for channel in channels]
        return Positions(names, named.get("", named))
    except (BadRequest, ValueError) as error:
        raise Failure(str(error), code=ExitCode.USAGE) from error


def _one_position(positions: "Positions") -> None:
    try:
        positions.oldest()
    except ValueError as error:
        text = "over SSE one position covers all channels: give --after for each channel, or once"
        raise Failure(text, code=ExitCode.USAGE) from error


def _after(positions: "Positions") -> list[str]:
    known = positions.known()
    if len(set(known.values())) == 1 and len(known) == len(positions.channels):
        return ["--after", next(iter(known.values()))]
    return [part for name, at in known.items() for part in ("--after", f"{name}={at}")]
