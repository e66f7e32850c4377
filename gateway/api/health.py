"""Is the process alive, and is it any use?"""

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response

from gateway.api.problems import JSONResponse


async def healthz(request: Request) -> Response:
    """`GET /healthz`: the process answers."""
    return JSONResponse({"status": "ok"})


class Readiness:
    """`GET /readyz`: 200 if the broker is there and events flow, 503 otherwise."""

    def __init__(self, ready: Callable[[], bool]) -> None:
        self._ready = ready

    async def __call__(self, request: Request) -> Response:
        if self._ready():
            return JSONResponse({"status": "ready", "broker": "connected"})
        return JSONResponse({"status": "not ready", "broker": "away"}, status_code=503)
