"""`GET /metrics`, for Prometheus: of the process that answers, and of the log that all share."""

import asyncio
import math
import time
from collections.abc import Iterator, Sequence

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.admission import Admission
from gateway.api.events import check_bearer
from gateway.broker.figures import Figures, LogFigures
from gateway.commands import Priority
from gateway.config import AdminConfig
from gateway.errors import BrokerUnavailable, Overloaded
from gateway.telemetry.metrics import CONTENT_TYPE, Metrics

INTERVAL = 1.0
"""Seconds for which the log's figures are not read again, however often they are asked for."""
PATIENCE = 2.0
"""Seconds to wait for them. Then the process tells of itself alone."""


def routes(
    metrics: Metrics, shared: "SharedMetrics", access: AdminConfig, *, secured: bool
) -> Iterator[Route]:
    """Give the route, for whom it is for. `secured`: there is authentication."""
    whom = access.metrics or ("operators" if access.tokens or secured else "anybody")
    if whom != "nobody":
        tokens = access.tokens if whom == "operators" else None
        yield Route("/metrics", Exposition(metrics, shared, tokens).__call__)


class SharedMetrics:
    """What the log tells: the same of every process, and nothing while the broker is away."""

    def __init__(
        self, metrics: Metrics, figures: Figures, admission: Admission, *, node: str
    ) -> None:
        """`node`: this process, among those that read the log."""
        self._figures = figures
        self._admission = admission
        self._node = node
        self._read_at = -INTERVAL
        self._backlog = metrics.sheet(
            "gateway_backlog", "Commands that are not settled, by stream.", "stream"
        )
        self._pending = metrics.sheet(
            "gateway_pending", "Of these, those that a worker has taken.", "stream"
        )
        self._workers = metrics.sheet(
            "gateway_workers", "Workers that read a stream, and lived a moment ago.", "stream"
        )
        self._dead_letters = metrics.sheet(
            "gateway_dead_letters", "Commands that were given up on, by stream.", "stream"
        )
        self._lag = math.nan
        metrics.gauge(
            "gateway_feed_lag",
            "Entries of the event log that this process has not read yet.",
            lambda: self._lag,
        )

    async def refresh(self) -> None:
        """Read the figures, if they are not fresh."""
        now = time.monotonic()
        if now < self._read_at + INTERVAL:
            return
        self._read_at = now
        try:
            self._admission.check(Priority.LOW)
            async with asyncio.timeout(PATIENCE):
                self._show(await self._figures.read())
        except (BrokerUnavailable, Overloaded, TimeoutError):
            self._show(LogFigures([], [], 0))

    def _show(self, figures: LogFigures) -> None:
        self._backlog({each.name: each.backlog for each in figures.streams})
        self._pending({each.name: each.pending for each in figures.streams})
        self._workers({each.name: each.workers for each in figures.streams})
        self._dead_letters({each.name: each.dead_letters for each in figures.streams})
        lags = {each.name: each.lag for each in figures.nodes}
        self._lag = lags.get(self._node, math.nan)


class Exposition:
    """`GET /metrics`."""

    def __init__(
        self, metrics: Metrics, shared: SharedMetrics, tokens: Sequence[str] | None
    ) -> None:
        """`tokens` are of those who may see it; None: everybody may."""
        self._metrics = metrics
        self._shared = shared
        self._tokens = tokens

    async def __call__(self, request: Request) -> Response:
        if self._tokens is not None:
            check_bearer(request, self._tokens, "[admin] tokens")
        await self._shared.refresh()
        headers = {"content-type": CONTENT_TYPE, "cache-control": "no-store"}
        return Response(self._metrics.text(), headers=headers)
