"""Events over HTTP: from trusted producers in, and what channels retain out."""

import hmac
from collections.abc import Callable, Sequence

from starlette.requests import Request
from starlette.responses import Response

from gateway.api import cloudevents
from gateway.api.problems import JSONResponse
from gateway.broker.eventlog import EventLog
from gateway.channels import EARLIEST, Position, check_name
from gateway.config import EventsConfig
from gateway.dispatch import Dispatcher
from gateway.errors import BadRequest, Forbidden, Unauthorized, UnknownChannel
from gateway.events import Retention
from gateway.policy.routes import Channels

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000


class EventsEndpoint:
    """`POST /events`: CloudEvents from a trusted producer."""

    def __init__(self, dispatcher: Dispatcher, access: EventsConfig, *, max_body: int) -> None:
        self._dispatcher = dispatcher
        self._access = access
        self._max_body = max_body

    async def __call__(self, request: Request) -> Response:
        authorize(request, anonymous=self._access.anonymous, tokens=self._access.tokens)
        events = await cloudevents.read(request, self._max_body)
        return JSONResponse({"ids": await self._dispatcher.publish(events)}, status_code=202)


def authorize(request: Request, *, anonymous: bool, tokens: Sequence[str]) -> None:
    """Check that the request comes from a trusted producer. Raises `Forbidden`, `Unauthorized`."""
    if anonymous:
        return
    if not tokens:
        raise Forbidden("this gateway takes events from nobody: [events] tokens is empty")
    check_bearer(request, tokens, "[events] tokens")


def check_bearer(request: Request, tokens: Sequence[str], where: str) -> None:
    """Check that the request shows one of the tokens, which are configured at `where`.

    How long that takes tells nothing about them. Raises `Unauthorized`.
    """
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    given = token.strip().encode()
    known = [hmac.compare_digest(given, each.encode()) for each in tokens]  # all, whichever fits
    if scheme.lower() != "bearer" or True not in known:
        raise Unauthorized(f"expected Authorization: Bearer with a token of {where}")


class HistoryEndpoint:
    """`GET /channels/{channel}/history?after=&limit=`: what a channel retains, as a batch.

    `Gateway-Position` is where to subscribe from to hear what follows.
    """

    def __init__(
        self, log: EventLog, channels: Channels, retention: Callable[[str], Retention]
    ) -> None:
        self._log = log
        self._channels = channels
        self._retention = retention

    async def __call__(self, request: Request) -> Response:
        name = check_name(request.path_params["channel"])
        if self._channels.match(name) is None:
            raise UnknownChannel(f"no configured channel pattern covers {name!r}")
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
