"""Running it: one process that serves, works, or does both, until it is told to stop."""

import asyncio
import contextlib
import gc
import logging
import math
import os
import resource
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from errno import EADDRINUSE
from pathlib import Path
from typing import Any

import uvicorn
import uvloop

from gateway.api.problems import respond
from gateway.app import Gateway
from gateway.broker.broker import Broker, open_broker
from gateway.certificates import Certificates
from gateway.config import Config, TLSConfig
from gateway.errors import BrokerUnavailable, StartError
from gateway.policy.compiler import Policy
from gateway.processes import FORCED, orphaned, supervise
from gateway.transports.connection import has_arrived
from gateway.transports.turnstile import Turnstile
from gateway.transports.uvicorn_http import HTTPProtocol
from gateway.transports.uvicorn_websocket import WebSocketProtocol
from gateway.worker.consumer import Worker
from gateway.worker.loading import load

logger = logging.getLogger(__name__)

BACKLOG = 4096
"""Connections that may wait to be accepted: all who come back after a restart come at once."""
YOUNG = 5_000
"""Objects more than before at which the garbage collector looks at the newest; it is 700 else."""
HANDSHAKE = 20.0
"""Seconds for a TLS handshake, as many as for a head."""
PARTING = 0.5
"""Seconds after which a stopping server looks at who has not gone yet, again and again."""
FLUSH = 0.2
"""Seconds for goodbyes to leave before the process does."""


def run(
    config: Config,
    policy: Policy,
    *,
    base_dir: Path,
    serve: bool,
    work: bool,
    processes: int = 1,
    on_ready: Callable[[str], None] = lambda url: None,
) -> None:
    """Serve, work, or both, until SIGTERM or SIGINT; a second signal ends it at once.

    `base_dir` is where handler modules are looked for first. `processes` share one port.
    `on_ready` is called once, with the base URL, when requests are taken (when working alone: with
    the empty string).

    Raises:
        StartError: the port or the broker cannot be had.
        ConfigError: the handlers cannot be used.
        SystemExit: with `FORCED`, after a second signal to several processes.
    """
    _allow_files()
    listener = _listen(config) if serve else None
    url = _url(config, listener) if listener else ""

    parent = os.getpid() if processes > 1 else None

    def one(ready: Callable[[], None]) -> None:
        process = _Process(config, policy, base_dir, listener, work, ready, parent)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(process.run())

    try:
        if processes == 1:
            one(lambda: on_ready(url))
        else:
            # Who comes while the processes stop is refused, and not kept waiting for nobody.
            close = listener.close if listener else lambda: None
            supervise(one, processes, on_ready=lambda: on_ready(url), on_stop=close)
    finally:
        if listener:
            listener.close()


def _allow_files() -> None:
    """Let this process have as many connections as the system allows; many shells allow 1024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # macOS has a lower bound of its own
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _listen(config: Config) -> socket.socket:
    """Return a socket that listens, before anything else is started. Raises `StartError`.

    Who connects before the rest has started is served as soon as that is done.
    """
    host, port = config.server.host, config.server.port
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)  # of two processes that bound the same port, only one may
    except OSError as error:
        hint = "; --port chooses another, 0 any free one" if error.errno == EADDRINUSE else ""
        raise StartError(f"cannot listen on {host}:{port}: {error.strerror}{hint}") from error
    listener.set_inheritable(True)
    return listener


def _url(config: Config, listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = "127.0.0.1"
    scheme = "https" if config.tls.certificate else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


class _Server(uvicorn.Server):
    """uvicorn, which leaves signals to us and says goodbye to subscribers first."""

    def __init__(self, config: uvicorn.Config, gateway: Gateway, turnstile: Turnstile) -> None:
        super().__init__(config)
        self._gateway = gateway
        self._turnstile = turnstile

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections. uvicorn would do so with no bound on TLS handshakes but 60 s."""
        loop = asyncio.get_running_loop()
        bounds: dict[str, Any] = {"ssl_handshake_timeout": HANDSHAKE} if self.config.ssl else {}
        self.servers = [
            await loop.create_server(
                self._connection, sock=each, ssl=self.config.ssl, backlog=BACKLOG, **bounds
            )
            for each in sockets or []
        ]
        self.started = True

    def _connection(self) -> asyncio.Protocol:
        protocol: Any = self.config.http_protocol_class
        made: asyncio.Protocol = protocol(
            config=self.config, server_state=self.server_state, app_state={}
        )
        return made

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        self._turnstile.closed = True
        self._gateway.say_goodbye()
        parting = asyncio.create_task(self._part())
        await super().shutdown(sockets)
        parting.cancel()
        await asyncio.sleep(FLUSH)

    async def _part(self) -> None:
        """Leave peers that have everything and say nothing more, until cancelled.

        Over TLS a connection lasts until both sides have said that it ends, and clients do not look
        at those that they keep for later.
        """
        while True:
            await asyncio.sleep(PARTING)
            for each in list(self.server_state.connections):
                if each.transport.is_closing() and has_arrived(each.transport):
                    each.transport.abort()


class _Process:
    """What one process does."""

    def __init__(
        self,
        config: Config,
        policy: Policy,
        base_dir: Path,
        listener: socket.socket | None,
        work: bool,
        ready: Callable[[], None],
        parent: int | None,
    ) -> None:
        """`parent` is the process without which this one shall not go on."""
        self._parent = parent
        self._config = config
        self._policy = policy
        self._listener = listener
        self._ready = ready
        self._handlers = load(config.worker.handlers, base_dir) if work else None
        self._stops: list[Callable[[], None]] = []
        self._stopping = False

    async def run(self) -> None:
        """Run until stopped. Raises `StartError`."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._on_signal)
        if self._parent is None:  # otherwise that one passes it on
            loop.add_signal_handler(signal.SIGINT, self._on_signal)
        async with open_broker(self._config.broker) as broker, self._serving(broker) as served:
            jobs = [*served, *self._working(broker)]
            if self._stopping:
                return
            _spare_the_collector()
            watch = asyncio.create_task(self._watch_parent())
            try:
                await _together(jobs)
            finally:
                watch.cancel()
        logger.info("it has stopped")

    async def _watch_parent(self) -> None:
        if self._parent is not None:
            await orphaned(self._parent)
            self._on_signal()

    def _on_signal(self) -> None:
        if self._stopping:
            os._exit(FORCED)
        self._stopping = True
        if self._stops:
            logger.info("it is told to stop; told once more, it stops at once")
        for stop in self._stops:
            stop()

    def _working(self, broker: Broker) -> list[Callable[[], Awaitable[None]]]:
        if self._handlers is None:
            return []
        worker = Worker(broker, self._handlers, self._policy, self._config)
        self._stops.append(worker.stop)
        if self._listener is None:
            self._ready()
        return [worker.run]

    @contextlib.asynccontextmanager
    async def _serving(self, broker: Broker) -> AsyncIterator[list[Callable[[], Awaitable[None]]]]:
        if self._listener is None:
            yield []
            return
        gateway = Gateway(self._config, self._policy, broker)
        turnstile = Turnstile()
        uvicorn_config = self._uvicorn(gateway, turnstile)
        server = _Server(uvicorn_config, gateway, turnstile)
        self._stops.append(lambda: setattr(server, "should_exit", True))
        async with _started(gateway), _encrypted(self._config.tls, uvicorn_config):
            yield [lambda: self._serve(server)]

    async def _serve(self, server: _Server) -> None:
        assert self._listener is not None
        task = asyncio.create_task(server.serve([self._listener]))
        while not server.started and not task.done():  # noqa: ASYNC110  uvicorn has no event
            await asyncio.sleep(0.01)
        if server.started:
            self._ready()
        await task

    def _uvicorn(self, gateway: Gateway, turnstile: Turnstile) -> uvicorn.Config:
        return uvicorn.Config(
            gateway.app(),
            http=HTTPProtocol.behind(turnstile, gateway.first_line, respond),
            ws=WebSocketProtocol,
            lifespan="off",
            log_config=None,
            access_log=self._config.log.requests,
            server_header=False,
            proxy_headers=False,  # the gateway reads them itself, and believes not everybody
            backlog=BACKLOG,
            ws_max_size=self._config.server.max_frame,
            ws_per_message_deflate=False,
            ws_ping_interval=None,
            timeout_graceful_shutdown=math.ceil(self._config.server.shutdown),
        )


@contextlib.asynccontextmanager
async def _encrypted(tls: TLSConfig, server: uvicorn.Config) -> AsyncIterator[None]:
    """Have the server speak TLS, if it is configured to, with whatever is in the files."""
    if tls.certificate is None:
        yield
        return
    try:
        certificates = Certificates(tls)
    except ValueError as error:  # it was fine when the configuration was read
        raise StartError(str(error)) from None
    server.load()
    server.ssl = certificates.context
    watching = asyncio.create_task(certificates.watch())
    try:
        yield
    finally:
        watching.cancel()


def _spare_the_collector() -> None:
    """Leave out of every garbage collection to come what lives as long as the process.

    Modules and configuration are most of all objects: to walk them takes 65 ms, in which nobody is
    served, again and again while connections come and go. What a few dozen requests under way have
    in hand is nothing to walk again and again either: that took a tenth of a command.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG)


@contextlib.asynccontextmanager
async def _started(gateway: Gateway) -> AsyncIterator[None]:
    """Run the gateway's feed. What keeps it from starting is a `StartError`."""
    async with contextlib.AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(gateway.running())
        except BrokerUnavailable as error:
            raise StartError(f"expected a broker that answers but {error}") from error
        yield


async def _together(jobs: list[Callable[[], Awaitable[None]]]) -> None:
    """Run the jobs until all have ended; one that fails ends the others. Raises its exception."""
    tasks = [asyncio.ensure_future(job()) for job in jobs]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
