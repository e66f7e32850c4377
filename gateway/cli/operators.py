"""What operators ask of a gateway over HTTP, who have no way to its broker."""

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from gateway.cli.failures import ExitCode, Failure
from gateway.cli.options import read_token

if TYPE_CHECKING:
    import httpx

    from gateway.blocks import Block
    from gateway.broker.deadletters import DeadLetter, Filter, Kept

AdminUrl = Annotated[
    str | None,
    typer.Option(
        "--url",
        help="Ask the gateway there, with a --token of its operators. Without it, the broker "
        "that is configured is asked.",
        rich_help_panel="The gateway",
        show_default=False,
    ),
]
TIMEOUT = 30.0
"""Seconds to wait for an answer."""
PAGE = 200
"""Dead letters to ask for at a time."""


def refuse_token(token: str | None) -> None:
    """Return if there is none: the broker has no use for it. Raises `Failure`."""
    if token is not None:
        raise Failure("expected --url beside --token", code=ExitCode.USAGE)


@asynccontextmanager
async def asking(url: str, token: str | None) -> AsyncIterator["Operators"]:
    """Give what asks the gateway at `url`. Raises `Failure`."""
    import httpx

    from gateway.client.http import credentials, endpoint

    try:
        base = endpoint(url, "")
    except ValueError as error:
        raise Failure(str(error), code=ExitCode.USAGE) from error
    headers = credentials(read_token(token))
    async with httpx.AsyncClient(base_url=base, headers=headers, timeout=TIMEOUT) as client:
        yield Operators(client)


class Refusal(Failure):
    """The gateway was asked, and said no."""


class Operators:
    """A gateway's `/admin/`."""

    def __init__(self, client: "httpx.AsyncClient") -> None:
        self._client = client

    async def ask(self, method: str, path: str, **options: Any) -> "httpx.Response":
        """Return the answer. Raises `Refusal`, `Failure`."""
        import httpx

        from gateway.cli.posting import refusal
        from gateway.client.http import cannot_connect

        try:
            response = await self._client.request(method, f"/admin{path}", **options)
        except httpx.RequestError as error:
            raise Failure(cannot_connect(str(self._client.base_url), error)) from error
        if not response.is_success:
            no = refusal(response)
            asked_for_it = response.status_code == HTTPStatus.UNAUTHORIZED
            shown = "authorization" in self._client.headers
            hint = "; give one with --token" if asked_for_it and not shown else ""
            raise Refusal(f"{no}{hint}", code=no.code)
        return response


class RemoteBlocks:
    """Blocks, as `gateway block` needs them."""

    def __init__(self, operators: Operators) -> None:
        self._operators = operators

    async def add(self, block: "Block") -> str:
        wish: dict[str, Any] = {"reason": block.reason}
        wish |= {"token_id": block.token_id} if block.token_id else {"principal": block.principal}
        if block.until is not None:
            wish["for"] = round(block.until - block.created_at, 3)
        added = await self._operators.ask("POST", "/blocks", json=wish)
        id: str = added.json()["id"]
        return id

    async def all(self) -> list[dict[str, Any]]:
        answer = await self._operators.ask("GET", "/blocks")
        blocks: list[dict[str, Any]] = answer.json()["blocks"]
        return blocks

    async def remove(self, id: str) -> None:
        await self._operators.ask("DELETE", f"/blocks/{quote(id, safe='')}")


class RemoteLetters:
    """Dead letters, as `gateway dead-letters` needs them."""

    def __init__(self, operators: Operators) -> None:
        self._operators = operators

    async def all(
        self, wanted: "Filter", *, limit: int | None = None
    ) -> AsyncIterator["DeadLetter"]:
        import msgspec

        from gateway.broker.deadletters import DeadLetter

        query = {name: value for name, value in wanted._asdict().items() if value}
        after: str | None = ""
        while after is not None and limit != 0:
            page = {"limit": PAGE if limit is None else min(limit, PAGE), "after": after}
            found = (await self._operators.ask("GET", "/dead-letters", params=query | page)).json()
            for letter in msgspec.convert(found["dead_letters"], list[DeadLetter]):
                yield letter
            after = found["next"]
            if limit is not None:
                limit -= len(found["dead_letters"])

    async def count(self) -> int:
        found = await self._operators.ask("GET", "/dead-letters", params={"limit": 1})
        total: int = found.json()["total"]
        return total

    async def get(self, id: str) -> "Kept":
        import msgspec

        from gateway.broker.deadletters import DeadLetter, Kept

        class Command(msgspec.Struct):
            command: msgspec.Raw = msgspec.Raw()
            command_base64: str = ""

        document = (await self._operators.ask("GET", _path(id))).content
        letter = msgspec.json.decode(document, type=DeadLetter)
        sent = msgspec.json.decode(document, type=Command)
        envelope = bytes(sent.command) or base64.b64decode(sent.command_base64)
        return Kept(letter, envelope, entry="")

    async def redrive(self, id: str, *, to: str | None = None) -> None:
        query = {} if to is None else {"stream": to}
        await self._operators.ask("POST", f"{_path(id)}/redrive", params=query)

    async def discard(self, id: str) -> None:
        await self._operators.ask("DELETE", _path(id))


def _path(id: str) -> str:
    return f"/dead-letters/{quote(id, safe='')}"
