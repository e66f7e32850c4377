"""What operators do about people over HTTP: block them, see and close their connections."""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from gateway.api import bodies
from gateway.api.admin import guarded
from gateway.api.events import read_limit
from gateway.api.problems import JSONResponse
from gateway.auth.revocation import Revocation
from gateway.blocks import Block, Subject, moment
from gateway.errors import BadRequest
from gateway.hub.subscription import Connection
from gateway.settings import Seconds

MAX_BODY = 16 << 10
MAX_NAME = 1024
"""Characters of whom a block is about, and of its reason."""


def routes(revocation: Revocation, tokens: Sequence[str]) -> Iterator[BaseRoute]:
    """Give the routes below `/admin/`; none without tokens."""
    if not tokens:
        return
    admin = _Admin(revocation)
    for path, method, endpoint in (
        ("/admin/blocks", "GET", admin.blocks),
        ("/admin/blocks", "POST", admin.block),
        ("/admin/blocks/{id}", "DELETE", admin.unblock),
        ("/admin/connections", "GET", admin.connections),
        ("/admin/connections/{id}", "DELETE", admin.close),
    ):
        yield Route(path, guarded(endpoint, tokens), methods=[method])


class _Wish(msgspec.Struct, forbid_unknown_fields=True, rename={"for_": "for"}):
    principal: str | None = None
    token_id: str | None = None
    for_: str | float | None = None
    reason: str = ""


class _Admin:
    def __init__(self, revocation: Revocation) -> None:
        self._revocation = revocation

    async def blocks(self, request: Request) -> Response:
        """`GET /admin/blocks`: those that last, newest first."""
        return JSONResponse({"blocks": [each.told() for each in await self._revocation.blocks()]})

    async def block(self, request: Request) -> Response:
        """`POST /admin/blocks`: 201. A second block of the same replaces the first."""
        block = read_block(await bodies.read(request, MAX_BODY))
        await self._revocation.block(block)
        location = {"location": f"/admin/blocks/{block.id}"}
        return JSONResponse(block.told(), status_code=201, headers=location)

    async def unblock(self, request: Request) -> Response:
        """`DELETE /admin/blocks/{id}`: 204."""
        await self._revocation.unblock(request.path_params["id"])
        return Response(status_code=204)

    async def connections(self, request: Request) -> Response:
        """`GET /admin/connections?principal=&channel=&limit=`: of this process, oldest first."""
        query = request.query_params
        principal, channel = query.get("principal"), query.get("channel")
        limit = read_limit(request)
        found = [
            each
            for each in self._revocation.connections()
            if (principal is None or _is(each, principal))
            and (channel is None or channel in _channels(each))
        ]
        document = {
            "node": self._revocation.node,
            "total": len(found),
            "connections": [self._connection(each) for each in found[:limit]],
        }
        return JSONResponse(document)

    async def close(self, request: Request) -> Response:
        """`DELETE /admin/connections/{id}`: 204; 202 if another process was told to do it."""
        closed = await self._revocation.close(request.path_params["id"])
        return Response(status_code=204 if closed else 202)

    def _connection(self, connection: Connection) -> dict[str, Any]:
        caller = connection.caller
        return {
            "id": self._revocation.id_of(connection),
            "principal": {
                "id": caller.principal.id,
                "type": caller.principal.type,
                "name": caller.principal.name,
            },
            "address": caller.address,
            "transport": caller.transport,
            "channels": _channels(connection),
            "since": moment(connection.since),
            "unsent_bytes": connection.unsent(),
        }


def _is(connection: Connection, principal: str) -> bool:
    """Tell whether somebody of this id or name is at the other end."""
    found = connection.caller.principal
    return principal in (found.id, found.name)


def _channels(connection: Connection) -> list[str]:
    return [audience.channel.decode() for audience in connection.audiences]


def read_block(body: bytes) -> Block:
    """Return the block that a request's body asks for. Raises `BadRequest`."""
    try:
        wish = msgspec.json.decode(body, type=_Wish)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"expected a block; {error}") from None
    try:
        seconds = None if wish.for_ is None else float(Seconds.parse(wish.for_))
    except ValueError as error:
        raise BadRequest(f"{error} as 'for' but got {str(wish.for_)[:40]!r}") from None
    if (wish.principal is None) == (wish.token_id is None) or seconds == 0:
        raise BadRequest(
            'expected {"principal": "…"} or {"token_id": "…"}, with a "for" such as "1h"'
        )
    subject = Subject.TOKEN_ID if wish.principal is None else Subject.PRINCIPAL
    name = wish.principal or wish.token_id or ""
    if not 1 <= len(name) <= MAX_NAME or len(wish.reason) > MAX_NAME:
        raise BadRequest(f"expected whom to block, and why, in up to {MAX_NAME} characters")
    return Block.of(subject, name, seconds=seconds, reason=wish.reason)
