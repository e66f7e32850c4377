"""`gateway dead-letters`: look at commands given up on, send them again, or drop them."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple, Protocol, TypeVar

import typer

from gateway.cli.failures import ExitCode, Failure
from gateway.cli.operators import AdminUrl, Refusal, RemoteLetters, asking, refuse_token
from gateway.cli.options import ConfigOption, Token
from gateway.cli.run import DataDir, opened_broker

if TYPE_CHECKING:
    from gateway.broker.deadletters import DeadLetter, DeadLetters, Filter, Kept
    from gateway.redrive import Redrive

T = TypeVar("T")

LIST_EXAMPLES = """
[bold]Examples[/]

gateway dead-letters list

gateway dead-letters list --type order.place --reason attempts-used-up --limit 200

gateway dead-letters list --json | jq -r .id

gateway dead-letters list --url https://push.example.com --token @admin.txt
"""

SHOW_EXAMPLES = """
[bold]Examples[/]

gateway dead-letters show 01J8Z…

gateway dead-letters show 01J8Z… --json | jq .command.data
"""

REDRIVE_EXAMPLES = """
[bold]Examples[/]

gateway dead-letters redrive 01J8Z… 01J90…

gateway dead-letters redrive --all --type order.place

gateway dead-letters redrive --all --stream old-orders --to orders
"""

DISCARD_EXAMPLES = """
[bold]Examples[/]

gateway dead-letters discard 01J8Z…

gateway dead-letters discard --all --reason bad-data --yes
"""

Type = Annotated[
    str, typer.Option("--type", help="Only commands of this type.", show_default=False)
]
Stream = Annotated[
    str, typer.Option("--stream", help="Only those that were in this stream.", show_default=False)
]
ReasonOption = Annotated[
    str,
    typer.Option("--reason", help="Only those given up on for this reason.", show_default=False),
]
Json = Annotated[bool, typer.Option("--json", help="Print it for programs.")]
Ids = Annotated[
    list[str] | None, typer.Argument(metavar="ID", help="Which ones.", show_default=False)
]
All = Annotated[bool, typer.Option("--all", help="All of them, or all that the filters leave.")]
Limit = Annotated[
    int | None,
    typer.Option(
        "--limit",
        min=1,
        metavar="N",
        help="With --all: at most so many, the newest.",
        show_default=False,
    ),
]


def list_(
    type_: Type = "",
    stream: Stream = "",
    reason: ReasonOption = "",
    limit: Annotated[
        int, typer.Option("--limit", min=1, metavar="N", help="At most so many.")
    ] = 50,
    json: Json = False,
    config: ConfigOption = None,
    data_dir: DataDir = None,
    url: AdminUrl = None,
    token: Token = None,
) -> None:
    """List commands given up on, the newest first.

    With --json each is a line of JSON.
    """
    wanted = _filter(type_, stream, reason)

    async def job(log: Log) -> None:
        from gateway.cli.letters import print_json_line, print_list

        letters = [letter async for letter in log.all(wanted, limit=limit)]
        if json:
            for letter in letters:
                print_json_line(letter)
        else:
            print_list(letters, total=await log.count())

    _with_log(job, Place(config, data_dir, url, token))


def show(
    id_: Annotated[str, typer.Argument(metavar="ID", help="Which one.")],
    json: Json = False,
    config: ConfigOption = None,
    data_dir: DataDir = None,
    url: AdminUrl = None,
    token: Token = None,
) -> None:
    """Show all that is known of a command given up on: why, every attempt, and the command."""

    async def job(log: Log) -> None:
        from gateway.cli.letters import print_json_line, print_letter

        kept = await log.get(id_)
        if json:
            print_json_line(kept.document())
        else:
            print_letter(kept)

    _with_log(job, Place(config, data_dir, url, token))


def redrive(
    ids: Ids = None,
    all_: All = False,
    type_: Type = "",
    stream: Stream = "",
    reason: ReasonOption = "",
    limit: Limit = None,
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="STREAM",
            help="Send them to this stream, instead of the one that each was in.",
            show_default=False,
        ),
    ] = None,
    config: ConfigOption = None,
    data_dir: DataDir = None,
    url: AdminUrl = None,
    token: Token = None,
) -> None:
    """Send commands again that were given up on, the oldest first. Prints their ids.

    Each keeps its id, goes to the end of its key's line, and has all its attempts anew.
    """
    chosen = _chosen(ids, all_, _filter(type_, stream, reason), limit)

    async def job(log: Log) -> None:
        async def one(command_id: str) -> None:
            await log.redrive(command_id, to=to)

        await _each(await chosen(log), one, "redriven")

    _with_log(job, Place(config, data_dir, url, token))


def discard(
    ids: Ids = None,
    all_: All = False,
    type_: Type = "",
    stream: Stream = "",
    reason: ReasonOption = "",
    limit: Limit = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    config: ConfigOption = None,
    data_dir: DataDir = None,
    url: AdminUrl = None,
    token: Token = None,
) -> None:
    """Drop commands that were given up on, for good. Prints their ids.

    Asks before it drops more than one.
    """
    chosen = _chosen(ids, all_, _filter(type_, stream, reason), limit)

    place = Place(config, data_dir, url, token)
    found = _with_log(chosen, place)
    if len(found) > 1 and not yes:
        _confirm(len(found))
    _with_log(lambda log: _each(found, log.discard, "discarded"), place)


class Place(NamedTuple):
    """Where the dead letters are: at a broker, or behind a gateway."""

    config: Path | None
    data_dir: Path | None
    url: str | None
    token: str | None


class Log(Protocol):
    """What the commands work on, by whichever way."""

    def all(self, wanted: "Filter", *, limit: int | None = None) -> AsyncIterator["DeadLetter"]:
        """Give those that are wanted, newest first, up to `limit`."""

    async def count(self) -> int:
        """Return how many there are."""

    async def get(self, id: str, /) -> "Kept":
        """Return one of them."""

    async def redrive(self, id: str, /, *, to: str | None = None) -> object:
        """Send one again."""

    async def discard(self, id: str, /) -> None:
        """Remove one for good."""


class _AtBroker:
    def __init__(self, letters: "DeadLetters", redrive: "Redrive") -> None:
        self.all = letters.all
        self.count = letters.count
        self.get = letters.get
        self.discard = letters.discard
        self.redrive = redrive


Chosen = Callable[[Log], Coroutine[None, None, Sequence[str]]]


def _with_log(job: Callable[[Log], Coroutine[None, None, T]], place: Place) -> T:
    async def run() -> T:
        async with _opened(place) as log:
            return await job(log)

    return asyncio.run(run())


@asynccontextmanager
async def _opened(place: Place) -> AsyncIterator[Log]:
    """Give the log of a configuration. An embedded server is shared with a gateway that runs."""
    if place.url is not None:
        async with asking(place.url, place.token) as operators:
            yield RemoteLetters(operators)
        return
    refuse_token(place.token)
    from gateway.redrive import Redrive

    async with opened_broker(place.config, place.data_dir) as (broker, policy):
        yield _AtBroker(broker.dead_letters, Redrive(broker.dead_letters, policy))


def _filter(type_: str, stream: str, reason: str) -> "Filter":
    from gateway.broker.deadletters import Filter, Reason

    if reason and reason not in list(Reason):
        raise Failure(
            f"expected one of {', '.join(Reason)} as --reason but got {reason!r}",
            code=ExitCode.USAGE,
        )
    return Filter(type_, stream, reason)


def _chosen(ids: list[str] | None, all_: bool, wanted: "Filter", limit: int | None) -> Chosen:
    """Return what finds the ids that a command line means, oldest first."""
    if bool(ids) == all_ or (ids and (any(wanted) or limit)):
        raise Failure(
            "expected the IDs of dead letters, or --all, with which filters can go",
            code=ExitCode.USAGE,
        )

    async def choose(log: Log) -> Sequence[str]:
        if ids:
            return list(dict.fromkeys(ids))
        found = [letter.id async for letter in log.all(wanted, limit=limit)]
        return found[::-1]

    return choose


def _confirm(count: int) -> None:
    if not sys.stdin.isatty():
        raise Failure(
            f"{count} dead letters would be gone for good: say --yes", code=ExitCode.USAGE
        )
    try:
        agreed = typer.confirm(f"{count} dead letters will be gone for good. Go on?", err=True)
    except typer.Abort:
        raise Failure("nothing was discarded", code=ExitCode.INTERRUPTED) from None
    if not agreed:
        raise Failure("nothing was discarded")


async def _each(ids: Sequence[str], act: Callable[[str], Awaitable[None]], done: str) -> None:
    """Act on each, and go on after one that is not there or cannot be. Fails in the end then."""
    from gateway.errors import CannotRedrive, StreamFull, UnknownDeadLetter

    failed = 0
    for command_id in ids:
        try:
            await act(command_id)
        except (UnknownDeadLetter, CannotRedrive, StreamFull, Refusal) as error:
            failed += 1
            typer.echo(f"gateway: {command_id}: {error}", err=True)
        else:
            typer.echo(command_id)
    if failed:
        raise Failure(f"{failed} of {len(ids)} could not be {done}")
