"""Tickets over HTTP: `POST /tickets`."""

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from gateway.api import bodies
from gateway.api.callers import identify
from gateway.api.problems import JSONResponse
from gateway.auth.doorkeeper import Doorkeeper
from gateway.channels import check_name
from gateway.config import Config
from gateway.dispatch import Dispatcher
from gateway.errors import BadRequest, TooManySubscriptions

MAX_BODY = 64 << 10


class _Wish(msgspec.Struct, forbid_unknown_fields=True):
    channels: tuple[str, ...] | None = None


class TicketsEndpoint:
    """`POST /tickets`: something to open one connection with, for who cannot send headers there.

    `{"channels": ["orders"]}` narrows what it is good for.
    """

    def __init__(self, dispatcher: Dispatcher, doorkeeper: Doorkeeper, config: Config) -> None:
        self._dispatcher = dispatcher
        self._doorkeeper = doorkeeper
        self._ttl = config.auth.ticket_ttl
        self._max_channels = config.server.max_subscriptions

    async def __call__(self, request: Request) -> Response:
        caller = await identify(request, self._dispatcher)
        channels = self._channels(await bodies.read(request, MAX_BODY))
        ticket = await self._doorkeeper.issue_ticket(caller, channels)
        return JSONResponse(
            {"ticket": ticket, "expires_in_ms": int(self._ttl * 1000)},
            status_code=201,
            headers={"cache-control": "no-store"},
        )

    def _channels(self, body: bytes) -> tuple[str, ...] | None:
        """Read what the ticket shall be for; None: all. Raises `BadRequest`."""
        try:
            wish = msgspec.json.decode(body, type=_Wish) if body else _Wish()
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadRequest(f'expected {{"channels": […]}} or nothing; {error}') from None
        if wish.channels is None:
            return None
        if len(wish.channels) > self._max_channels:
            raise TooManySubscriptions(f"expected at most {self._max_channels} channels")
        return tuple(dict.fromkeys(map(check_name, wish.channels)))
