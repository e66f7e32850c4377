"""What operators see and do over HTTP: dead letters, streams and lag.

It has a credential of its own, `[admin] tokens`; where none is configured none of it is there.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator, Sequence

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from gateway.api import commands
from gateway.api.events import check_bearer, read_limit
from gateway.api.problems import JSONResponse
from gateway.broker.broker import Broker
from gateway.broker.deadletters import DeadLetter, Filter, Reason
from gateway.errors import BadRequest
from gateway.redrive import Redrive

Endpoint = Callable[[Request], Awaitable[Response]]

_ENTRY = re.compile(r"[0-9]{1,19}-[0-9]{1,19}")


def routes(broker: Broker, redrive: Redrive, tokens: Sequence[str]) -> Iterator[BaseRoute]:
    """Give the routes below `/admin/`; none without tokens."""
    if not tokens:
        return
    admin = _Admin(broker, redrive)
    for path, method, endpoint in (
        ("/admin/dead-letters", "GET", admin.list),
        ("/admin/dead-letters/{id}", "GET", admin.show),
        ("/admin/dead-letters/{id}", "DELETE", admin.discard),
        ("/admin/dead-letters/{id}/redrive", "POST", admin.redrive),
        ("/admin/commands/{id}", "GET", admin.command),
        ("/admin/streams", "GET", admin.streams),
    ):
        yield Route(path, guarded(endpoint, tokens), methods=[method])


def guarded(endpoint: Endpoint, tokens: Sequence[str]) -> Endpoint:
    """Return an endpoint that is for operators alone."""

    async def checked(request: Request) -> Response:
        check_bearer(request, tokens, "[admin] tokens")
        response = await endpoint(request)
        response.headers["cache-control"] = "no-store"
        return response

    return checked


class _Admin:
    def __init__(self, broker: Broker, redrive: Redrive) -> None:
        self._letters = broker.dead_letters
        self._commands = broker.commands
        self._figures = broker.figures
        self._redrive = redrive

    async def list(self, request: Request) -> Response:
        """`GET /admin/dead-letters?type=&stream=&reason=&limit=&after=`: newest first.

        `next` is the `after` of the page that follows; null at the end. `total` counts all of them,
        whichever are asked for.
        """
        after = request.query_params.get("after", "")
        if after and not _ENTRY.fullmatch(after):
            raise BadRequest(
                f"expected the next of an earlier page as after but got {after[:80]!r}"
            )
        page = await self._letters.page(_filter(request), limit=read_limit(request), after=after)
        letters = [_without_traceback(letter) for letter in page.letters]
        total = await self._letters.count()
        return JSONResponse({"dead_letters": letters, "next": page.after, "total": total})

    async def show(self, request: Request) -> Response:
        """`GET /admin/dead-letters/{id}`: all of it, with the command as it was sent."""
        return JSONResponse((await self._letters.get(request.path_params["id"])).document())

    async def redrive(self, request: Request) -> Response:
        """`POST /admin/dead-letters/{id}/redrive?stream=`: 202, as when it was sent first."""
        to = request.query_params.get("stream")
        return commands.accepted(await self._redrive(request.path_params["id"], to=to))

    async def discard(self, request: Request) -> Response:
        """`DELETE /admin/dead-letters/{id}`: 204."""
        await self._letters.discard(request.path_params["id"])
        return Response(status_code=204)

    async def command(self, request: Request) -> Response:
        """`GET /admin/commands/{id}`: what became of a command, and whose it is."""
        id = request.path_params["id"]
        status, (owner,) = await asyncio.gather(
            self._commands.status(id), self._commands.owners([id])
        )
        return JSONResponse(msgspec.to_builtins(status) | {"owner": owner or None})

    async def streams(self, request: Request) -> Response:
        """`GET /admin/streams`: what waits in each, and how far the serving processes lag."""
        return JSONResponse(await self._figures.read())


def _filter(request: Request) -> Filter:
    query = request.query_params
    wanted = Filter(*(query.get(name, "") for name in Filter._fields))
    if wanted.reason and wanted.reason not in list(Reason):
        raise BadRequest(
            f"expected one of {', '.join(Reason)} as reason but got {wanted.reason[:80]!r}"
        )
    return wanted


def _without_traceback(letter: DeadLetter) -> DeadLetter:
    error = msgspec.structs.replace(letter.error, traceback="")
    return msgspec.structs.replace(letter, error=error)
