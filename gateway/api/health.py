"""Is the process alive, and is it any use?"""

from collections.abc import Callable
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from gateway.admission import Circuit
from gateway.api.problems import JSONResponse
from gateway.errors import BrokerUnavailable

FRESH = {"cache-control": "no-store"}
"""For what is only true now."""


class Health(NamedTuple):
    """What readiness is about."""

    connected: bool
    """Events flow from the broker."""
    circuit: Circuit
    """Requests reach it."""

    @property
    def ready(self) -> bool:
        return self.connected and self.circuit is Circuit.CLOSED


async def healthz(request: Request) -> Response:
    """`GET /healthz`: the process answers."""
    return JSONResponse({"status": "ok"}, headers=FRESH)


class Readiness:
    """`GET /readyz`: 200 if the broker takes requests and events flow, 503 otherwise."""

    def __init__(self, health: Callable[[], Health]) -> None:
        self._health = health

    async def __call__(self, request: Request) -> Response:
        health = self._health()
        if not health.ready:
            raise BrokerUnavailable(
                "the broker is away; this process waits for it",
                broker="connected" if health.connected else "away",
                circuit=health.circuit,
            )
        return JSONResponse(
            {"status": "ready", "broker": "connected", "circuit": health.circuit}, headers=FRESH
        )
