"""Is the process alive, and is it any use?"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.admission import Circuit
from gateway.api.events import check_bearer
from gateway.api.problems import JSONResponse
from gateway.config import AdminConfig
from gateway.errors import BrokerUnavailable
from gateway.telemetry.metrics import CONTENT_TYPE, Metrics

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


def metrics_routes(metrics: Metrics, access: AdminConfig, *, secured: bool) -> Iterator[Route]:
    """Give the route of `/metrics`, for whom it is for. `secured`: there is authentication."""
    whom = access.metrics or ("operators" if access.tokens or secured else "anybody")
    if whom != "nobody":
        tokens = access.tokens if whom == "operators" else None
        yield Route("/metrics", Exposition(metrics, tokens).__call__)


class Exposition:
    """`GET /metrics`: for Prometheus."""

    def __init__(self, metrics: Metrics, tokens: Sequence[str] | None) -> None:
        """`tokens` are of those who may see it; None: everybody may."""
        self._metrics = metrics
        self._tokens = tokens

    async def __call__(self, request: Request) -> Response:
        if self._tokens is not None:
            check_bearer(request, self._tokens, "[admin] tokens")
        return Response(self._metrics.text(), headers={"content-type": CONTENT_TYPE} | FRESH)


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
