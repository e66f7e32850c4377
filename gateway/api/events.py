"""Events over HTTP: from trusted producers in, and what channels retain out."""

import hmac
from collections.abc import Callable, Sequence

from starlette.requests import Request
from starlette.responses import Response

from gateway.api import cloudevents
from gateway.api.callers import identify, locate
from gateway.api.problems import JSONResponse
from gateway.auth.authenticator import bearer
from gateway.broker.eventlog import EventLog
from gateway.channels import EARLIEST, Position
from gateway.config import EventsConfig
from gateway.dispatch import Dispatcher
from gateway.errors import BadRequest, Forbidden, Unauthorized
from gateway.events import Retention
from gateway.policy.permissions import Action
from gateway.principals import Caller

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000


class EventsEndpoint:
    """`POST /events`: CloudEvents from a trusted producer."""

    def __init__(
        self, dispatcher: Dispatcher, access: EventsConfig, *, max_body: int, secured: bool
    ) -> None:
        """`secured`: there is authentication, by which others than producers may publish too."""
        self._dispatcher = dispatcher
        self._access = access
        self._max_body = max_body
        self._secured = secured

    async def __call__(self, request: Request) -> Response:
        trusted = self._access.anonymous or shows_token(request, self._access.tokens)
        caller = locate(request, self._dispatcher) if trusted else await self._publisher(request)
        events = await cloudevents.read(request, self._max_body)
        ids, headers = await self._dispatcher.publish(events, caller, trusted=trusted)
        return JSONResponse({"ids": ids}, status_code=202, headers=headers)

    async def _publisher(self, request: Request) -> Caller:
        """Return who wants to publish without a producer's token. Raises `Forbidden`."""
        if self._secured:
            return await identify(request, self._dispatcher)
        if self._access.tokens:
            check_bearer(request, self._access.tokens, "[events] tokens")
        raise Forbidden("this gateway takes events from nobody: [events] tokens is empty")


def check_bearer(request: Request, tokens: Sequence[str], where: str) -> None:
    """Check that the request shows one of the tokens, which are configured at `where`.

    Raises `Unauthorized`.
    """
    if not shows_token(request, tokens):
        raise Unauthorized(f"expected Authorization: Bearer with a token of {where}")


def shows_token(request: Request, tokens: Sequence[str]) -> bool:
    """Tell whether the request shows one of the tokens. How long that takes tells nothing more."""
    given = (bearer(request.headers) or "").encode()
    known = [hmac.compare_digest(given, each.encode()) for each in tokens]  # all, whichever fits
    return True in known


class HistoryEndpoint:
    """`GET /channels/{channel}/history?after=&limit=`: what a channel retains, as a batch.

    `Gateway-Position` is where to subscribe from to hear what follows.
    """

    def __init__(
        self, dispatcher: Dispatcher, log: EventLog, retention: Callable[[str], Retention]
    ) -> None:
        self._dispatcher = dispatcher
        self._log = log
        self._retention = retention

    async def __call__(self, request: Request) -> Response:
        caller = await identify(request, self._dispatcher)
        name = self._dispatcher.guard.check_channel(
            request.path_params["channel"], caller, Action.HISTORY
        )
        await self._dispatcher.guard.check_owner([name], caller)
        after = request.query_params.get("after", EARLIEST)
        limit = read_limit(request)
        page = await self._log.read_history(
            name,
            after if after == EARLIEST else Position.parse(after),
            retention=self._retention(name),
            count=limit,
        )
        position = f"{page.epoch}-{page.last}"
        if page.more:
            position = f"{page.epoch}-{page.entries[-1][0].decode()}"
        return Response(
            b"[%b]" % b",".join([event for _, event in page.entries]),
            media_type=cloudevents.BATCH,
            headers={
                "gateway-position": position,
                "gateway-recovered": "true" if page.recovered else "false",
                "cache-control": "no-store",
            },
        )


def read_limit(request: Request) -> int:
    """Return the query's `limit`, or the default. Raises `BadRequest`."""
    text = request.query_params.get("limit")
    if text is None:
        return DEFAULT_LIMIT
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:6]) <= MAX_LIMIT):
        raise BadRequest(f"expected a limit from 1 to {MAX_LIMIT} but got {text[:20]!r}")
    return int(text)
