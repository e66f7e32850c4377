"""The application: everything of one serving process, wired together."""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute

from gateway import __version__
from gateway.addresses import Proxies
from gateway.admission import Admission, Circuit
from gateway.api import admin, health, metrics, pages, problems, revocation
from gateway.api.burden import Burden
from gateway.api.commands import CommandEndpoint, StatusEndpoint
from gateway.api.edge import Edge
from gateway.api.events import EventsEndpoint, HistoryEndpoint
from gateway.api.metrics import SharedMetrics
from gateway.api.tickets import TicketsEndpoint
from gateway.auth.authenticator import Authenticator, Source
from gateway.auth.credentials import Showing
from gateway.auth.doorkeeper import Doorkeeper
from gateway.auth.revocation import Revocation
from gateway.auth.sources import sources_of
from gateway.blocks import Blocks
from gateway.broker.broker import Broker
from gateway.commands import Durability
from gateway.config import Config
from gateway.dispatch import Dispatcher
from gateway.errors import BrokerUnavailable, GatewayError
from gateway.guard import Guard
from gateway.hub.feed import Feed
from gateway.hub.history import History
from gateway.hub.hub import Hub
from gateway.limits.firstline import LIMIT, FirstLine
from gateway.limits.limiter import Limiter
from gateway.limits.quotas import Quotas
from gateway.policy.compiler import Policy
from gateway.policy.origins import Origins
from gateway.policy.publishing import Publisher
from gateway.redrive import Redrive
from gateway.resources import web_dir
from gateway.telemetry.metrics import Metrics
from gateway.transports import sse, websocket
from gateway.transports.door import Door

logger = logging.getLogger(__name__)


class Gateway:
    """One serving process: its hub, its feed, its dispatcher, and the application over them."""

    def __init__(
        self, config: Config, policy: Policy, broker: Broker, *, sources: Sequence[Source] = ()
    ) -> None:
        """`sources` know credentials, beside those that are configured."""
        self.config = config
        self.policy = policy
        server = config.server
        node = secrets.token_hex(6)
        self._publisher = Publisher(policy.feeds, policy.channels)
        self.hub = Hub(
            History(broker.events, self._publisher.retention), write_buffer=server.write_buffer
        )
        blocks = Blocks()
        self.revocation = Revocation(blocks, broker.blocks, self.hub, node)
        self.feed = Feed(
            broker.events,
            self.hub,
            node,
            heartbeat=server.heartbeat,
            window_ms=int(server.goodbye_window * 1000),
            notices=self.revocation,
        )
        self.metrics = Metrics()
        self.admission = Admission(
            broker.probe, limit=config.broker.max_in_flight, patience=config.broker.patience
        )
        self.quotas = Quotas(config.quotas, broker.roll(node), self.admission, self.metrics)
        self.limiter = self._limiter(broker)
        self._origins = Origins(server.origins, tls=self._encrypted)
        proxies = Proxies(server.trusted_proxies)
        self.first_line = FirstLine(
            server.requests_per_ip, proxies, self.metrics.limited.labels(LIMIT).inc
        )
        self.authenticator = Authenticator(
            [*sources_of(config.auth, lost=self.revocation.end), *sources],
            self.metrics,
            anonymous=config.auth.anonymous,
        )
        self.doorkeeper = self._doorkeeper(broker, blocks)
        self.dispatcher = self._dispatcher(broker, proxies)
        self._broker = broker
        self._measure()
        self._shared_metrics = SharedMetrics(
            self.metrics, broker.figures, self.admission, node=node
        )

    def _limiter(self, broker: Broker) -> Limiter:
        return Limiter(
            self.policy.limits,
            broker.buckets,
            self.admission,
            self.metrics,
            processes=lambda: self.quotas.processes,
        )

    def _doorkeeper(self, broker: Broker, blocks: Blocks) -> Doorkeeper:
        auth = self.config.auth
        return Doorkeeper(
            self.authenticator,
            Showing(cookie=auth.cookie, origins=self._origins),
            broker.tickets,
            blocks,
            self.admission,
            ticket_ttl=auth.ticket_ttl,
        )

    def _dispatcher(self, broker: Broker, proxies: Proxies) -> Dispatcher:
        guard = Guard(
            self.policy.permissions,
            self.policy.channels,
            broker.commands,
            self.admission,
            self.doorkeeper,
            self.limiter,
            self.quotas,
            proxies,
        )
        return Dispatcher(
            self.policy.commands,
            guard,
            self._publisher,
            broker.commands,
            broker.events,
            self.hub,
            self.admission,
            self.metrics,
            max_body=self.config.server.max_body,
            claims=self.config.auth.claims,
        )

    def _measure(self) -> None:
        own = self.metrics
        own.state(
            "gateway_circuit",
            "Whether requests reach the broker.",
            list(Circuit),
            lambda: self.admission.circuit,
        )
        own.gauge(
            "gateway_requests_in_flight",
            "Requests that wait for the broker.",
            lambda: self.admission.under_way,
        )
        own.gauge(
            "gateway_processes",
            "Serving processes that share limits and quotas, as far as this one knows.",
            lambda: self.quotas.processes,
        )
        own.gauge(
            "gateway_requests_waiting",
            "Requests that wait because of a limit.",
            lambda: self.limiter.waiting,
        )
        own.gauge("gateway_connections", "Subscribers of this process.", lambda: len(self.hub))
        own.gauge("gateway_feed_connected", "1 if events flow.", lambda: float(self.feed.connected))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Tail the log for as long as the block lasts. Raises `BrokerUnavailable`, `StartError`."""
        if Durability.FSYNC in self.policy.commands.durabilities:
            await self._broker.check_sync()
        await self._broker.commands.open(self.policy.commands.streams)
        self._publisher.kept_since = await self._broker.events.retain(self._publisher.retentions)
        await self.feed.start()
        async with asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(self.feed.run()),
                tasks.create_task(self.admission.run()),
                tasks.create_task(self.authenticator.run()),
                *([tasks.create_task(self.quotas.run())] if self._attends else []),
            ]
            try:
                yield
                await self.dispatcher.drained()
            finally:
                for task in running:
                    task.cancel()
        with suppress(BrokerUnavailable):  # then the others clear away after this process
            await self.feed.leave()
            if self._attends:
                await self.quotas.leave()

    @property
    def _attends(self) -> bool:
        """Whether this process has to know of the others, and they of it."""
        return bool(self.policy.limits or self.quotas)

    def say_goodbye(self) -> None:
        """Tell every subscriber to come back, to whoever serves them then."""
        window_ms = int(self.config.server.goodbye_window * 1000)
        logger.info("subscribers are told to come back: %d", len(self.hub))
        self.hub.shut(window_ms=window_ms)

    def app(self) -> Starlette:
        """Return the ASGI application."""
        app = Starlette(
            routes=list(self._routes()),
            exception_handlers={
                GatewayError: self._refuse,
                HTTPException: problems.on_http_error,
            },
            middleware=[self._edge(), Middleware(problems.LastResort), self._burden()],
        )
        app.router.redirect_slashes = False  # the host it would redirect to is what the peer says
        app.state.door = Door(
            hub=self.hub,
            channels=self.policy.channels,
            dispatcher=self.dispatcher,
            max_subscriptions=self.config.server.max_subscriptions,
            max_frame=self.config.server.max_frame,
            heartbeat=self.config.server.heartbeat,
            first_frame=self.config.auth.first_frame,
            doorkeeper=self.doorkeeper,
            first_line=self.first_line,
        )
        return app

    def _edge(self) -> Middleware:
        return Middleware(
            Edge,
            origins=self._origins,
            hosts=self.config.server.hosts,
            hsts=self.config.tls.hsts if self._encrypted else 0,
        )

    def _burden(self) -> Middleware:
        server = self.config.server
        proxies = Proxies(server.trusted_proxies)
        return Middleware(Burden, proxies=proxies, max_body=server.max_body)

    @property
    def _encrypted(self) -> bool:
        """Whether this process speaks TLS itself."""
        return self.config.tls.certificate is not None

    async def _refuse(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, GatewayError)
        self.metrics.refused.labels(error.code).inc()
        return problems.respond(error)

    def _health(self) -> health.Health:
        return health.Health(connected=self.feed.connected, circuit=self.admission.circuit)

    def _routes(self) -> Iterator[BaseRoute]:
        server = self.config.server
        command = CommandEndpoint(
            self.dispatcher, max_body=server.max_body, max_wait=server.max_wait
        )
        for route in self.policy.commands:
            yield Route(route.path, command.__call__, methods=["POST"])
        events = EventsEndpoint(
            self.dispatcher,
            self.config.events,
            max_body=server.max_body,
            secured=self.policy.permissions.secured,
        )
        history = HistoryEndpoint(self.dispatcher, self._broker.events, self._publisher.retention)
        yield Route("/commands/{id}", StatusEndpoint(self.dispatcher).__call__)
        yield Route("/events", events.__call__, methods=["POST"])
        yield Route("/channels/{channel:path}/history", history.__call__)
        tickets = TicketsEndpoint(self.dispatcher, self.doorkeeper, self.config)
        yield Route("/tickets", tickets.__call__, methods=["POST"])
        yield Route("/sse", sse.endpoint)
        yield WebSocketRoute("/ws", websocket.endpoint)
        yield Route("/ws", problems.on_plain_request)
        yield Route("/healthz", health.healthz)
        yield from metrics.routes(
            self.metrics,
            self._shared_metrics,
            self.config.admin,
            secured=self.policy.permissions.secured,
        )
        yield Route("/readyz", health.Readiness(self._health).__call__)
        redrive = Redrive(self._broker.dead_letters, self.policy)
        tokens = self.config.admin.tokens
        yield from admin.routes(self._broker, redrive, tokens)
        yield from revocation.routes(self.revocation, tokens)
        yield from pages.routes(self.config, self.policy, web_dir(), __version__)
        yield WebSocketRoute("/{path:path}", problems.on_unknown_websocket)
