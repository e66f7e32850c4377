"""Is the process alive, and is it any use?"""

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response

from gateway.api.problems import JSONResponse
from gateway.errors import BrokerUnavailable

FRESH = {"cache-control": "no-store"}
"""For what is only true now."""


async def healthz(request: Request) -> Response:
    """`GET /healthz`: the process answers."""
    return JSONResponse({"status": "ok"}, headers=FRESH)


class Readiness:
    """`GET /readyz`: 200 if the broker is there and events flow, 503 otherwise."""

    def __init__(self, ready: Callable[[], bool]) -> None:
        self._ready = ready

    async def __call__(self, request: Request) -> Response:
        if not self._ready():
            raise BrokerUnavailable("the broker is away; this process waits for it")
        return JSONResponse({"status": "ready", "broker": "connected"}, headers=FRESH)
