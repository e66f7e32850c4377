"""`gateway block`: shut somebody out, see who is, and let them in again."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from gateway.cli.failures import ExitCode, Failure
from gateway.cli.operators import AdminUrl, RemoteBlocks, asking, refuse_token
from gateway.cli.options import ConfigOption, Token
from gateway.cli.run import DataDir, opened_broker

if TYPE_CHECKING:
    from gateway.blocks import Block
    from gateway.broker.blocklist import BlockList

ADD_EXAMPLES = """
[bold]Examples[/]

gateway block add alice --for 1h --reason spam

gateway block add --token-id 7f3a… --for 1d

gateway block add alice --url https://push.example.com --token @admin.txt
"""

LIST_EXAMPLES = """
[bold]Examples[/]

gateway block list

gateway block list --json | jq -r .id
"""

REMOVE_EXAMPLES = """
[bold]Examples[/]

gateway block remove 2c26b46b68ffc68f

gateway block remove alice
"""

HEAD = ("ID", "WHO", "UNTIL", "SINCE", "REASON")

TokenId = Annotated[
    str | None,
    typer.Option("--token-id", metavar="ID", help="One credential alone.", show_default=False),
]


def add(
    principal: Annotated[
        str | None,
        typer.Argument(
            metavar="PRINCIPAL",
            help="Whom: an id, for everybody of that id, or a whole name such as "
            "user:https%3A//idp.example:alice.",
            show_default=False,
        ),
    ] = None,
    token_id: TokenId = None,
    lasts: Annotated[
        str | None,
        typer.Option(
            "--for",
            metavar="DURATION",
            help="For how long, such as 1h. Without it, until the block is removed.",
            show_default=False,
        ),
    ] = None,
    reason: Annotated[
        str, typer.Option("--reason", help="Why; for operators alone.", show_default=False)
    ] = "",
    config: ConfigOption = None,
    data_dir: DataDir = None,
    url: AdminUrl = None,
    token: Token = None,
) -> None:
    """Shut somebody out, or one credential. Prints the id of the block.

    What they have open is closed on all processes within a second, and they are let in nowhere. A
    second block of the same replaces the first.
    """
    block = _block(principal, token_id, lasts, reason)

    async def job() -> None:
        async with _opened(config, data_dir, url, token) as blocks:
            typer.echo(await blocks.add(block))

    asyncio.run(job())


def list_(
    json: Annotated[bool, typer.Option("--json", help="A line of JSON for each.")] = False,
    config: ConfigOption = None,
    data_dir: DataDir = None,
    url: AdminUrl = None,
    token: Token = None,
) -> None:
    """List who is shut out, the newest block first."""

    async def job() -> list[dict[str, Any]]:
        async with _opened(config, data_dir, url, token) as blocks:
            return await blocks.all()

    _print(asyncio.run(job()), json=json)


def remove(
    which: Annotated[
        str | None,
        typer.Argument(
            metavar="[ID|PRINCIPAL]",
            help="The id of a block, or whom it is about.",
            show_default=False,
        ),
    ] = None,
    token_id: TokenId = None,
    config: ConfigOption = None,
    data_dir: DataDir = None,
    url: AdminUrl = None,
    token: Token = None,
) -> None:
    """Let somebody in again. Prints the id of the block that was."""
    if (which is None) == (token_id is None):
        raise Failure("expected the ID of a block, or whom it is about", code=ExitCode.USAGE)

    async def job() -> None:
        async with _opened(config, data_dir, url, token) as blocks:
            for each in await blocks.all():
                if which in _names(each) or (token_id and each.get("token_id") == token_id):
                    await blocks.remove(each["id"])
                    typer.echo(each["id"])
                    return
        raise Failure(f"there is no block of {which or token_id}")

    asyncio.run(job())


def _names(block: dict[str, Any]) -> tuple[str | None, ...]:
    """Return what a block can be called by."""
    return block["id"], block.get("principal"), block.get("token_id")


def _block(principal: str | None, token_id: str | None, lasts: str | None, reason: str) -> "Block":
    from gateway.blocks import Block, Subject
    from gateway.settings import Seconds

    if bool(principal) == bool(token_id):
        raise Failure("expected a PRINCIPAL or a --token-id", code=ExitCode.USAGE)
    try:
        seconds = None if lasts is None else float(Seconds.parse(lasts))
    except ValueError as error:
        raise Failure(f"{error} as --for but got {lasts!r}", code=ExitCode.USAGE) from error
    if seconds == 0:
        raise Failure("expected --for to be longer than nothing", code=ExitCode.USAGE)
    if principal:
        return Block.of(Subject.PRINCIPAL, principal, seconds=seconds, reason=reason)
    return Block.of(Subject.TOKEN_ID, token_id or "", seconds=seconds, reason=reason)


class _Blocks(Protocol):
    """Where blocks are kept, by whichever way."""

    async def add(self, block: "Block") -> str:
        """Keep a block, and return its id."""

    async def all(self) -> list[dict[str, Any]]:
        """Return all of them, as the HTTP interface tells them."""

    async def remove(self, id: str) -> None:
        """Lift a block."""


class _AtBroker:
    def __init__(self, kept: "BlockList") -> None:
        self._kept = kept

    async def add(self, block: "Block") -> str:
        await self._kept.add(block)
        return block.id

    async def all(self) -> list[dict[str, Any]]:
        return [block.told() for block in await self._kept.all()]

    async def remove(self, id: str) -> None:
        await self._kept.remove(id)


@asynccontextmanager
async def _opened(
    config: Path | None, data_dir: Path | None, url: str | None, token: str | None
) -> AsyncIterator[_Blocks]:
    if url is not None:
        async with asking(url, token) as operators:
            yield RemoteBlocks(operators)
        return
    refuse_token(token)
    async with opened_broker(config, data_dir) as (broker, _):
        yield _AtBroker(broker.blocks)


def _print(blocks: list[dict[str, Any]], *, json: bool) -> None:
    from gateway.cli.letters import print_json_line, print_table
    from gateway.cli.lines import printable

    if json:
        for block in blocks:
            print_json_line(block)
        return
    rows = [
        (
            block["id"],
            printable(block.get("principal") or f"token {block['token_id']}"),
            block["until"] or "for ever",
            block["created_at"],
            printable(block.get("reason", "")),
        )
        for block in blocks
    ]
    print_table(HEAD, rows)
    sys.stderr.write(f"{len(blocks)} {'block' if len(blocks) == 1 else 'blocks'}.\n")
