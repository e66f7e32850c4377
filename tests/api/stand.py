"""A gateway behind a listening socket, with a worker, in the process of the test."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any

import httpx
import uvicorn
from uvicorn.server import ServerState

from gateway.api.problems import respond
from gateway.app import Gateway
from gateway.auth.authenticator import Source
from gateway.broker.broker import Broker, open_broker
from gateway.config import Config
from gateway.policy.compiler import Policy
from gateway.transports.turnstile import Turnstile
from gateway.transports.uvicorn_http import HTTPProtocol
from gateway.transports.uvicorn_websocket import WebSocketProtocol
from gateway.worker.consumer import Worker
from gateway.worker.loading import handlers_of
from tests.servers import KEPT, eventually

Handler = Callable[..., Any]


class Stand:
    """What a test can do with a gateway that runs."""

    def __init__(
        self, gateway: Gateway, broker: Broker, port: int, http: httpx.AsyncClient
    ) -> None:
        self.gateway = gateway
        self.broker = broker
        self.port = port
        self.http = http

    async def post(self, path: str, content: Any, **headers: str) -> httpx.Response:
        """Post a body as it is; it is JSON unless `content_type` says something else."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.http.post(
            path, content=content, headers={"content-type": "application/json"} | named
        )

    async def raw(self, request: bytes) -> tuple[int, dict[str, str], bytes]:
        """Send bytes; return status, headers and body of the answer, which must have a length."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(request)
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
            status, *lines = head.decode("latin-1").strip().split("\r\n")
            headers = {line.split(": ", 1)[0].lower(): line.split(": ", 1)[1] for line in lines}
            body = await asyncio.wait_for(reader.readexactly(int(headers["content-length"])), 30)
            return int(status.split()[1]), headers, body
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


@contextlib.asynccontextmanager
async def standing(
    config: Config, *handlers: Handler, sources: Sequence[Source] = ()
) -> AsyncIterator[Stand]:
    """Serve on a free port, and have the handlers work. `sources` know credentials."""
    policy = Policy.of(config)
    async with contextlib.AsyncExitStack() as stack:
        broker = await stack.enter_async_context(open_broker(config.broker))
        gateway = Gateway(config, policy, broker, sources=sources)
        await stack.enter_async_context(gateway.running())
        if handlers:
            worker = Worker(broker, handlers_of(*handlers), policy, config)
            await stack.enter_async_context(working(worker))
        port = await stack.enter_async_context(_listening(gateway, config))
        url = f"http://127.0.0.1:{port}"
        http = httpx.AsyncClient(base_url=url, timeout=30, limits=KEPT)
        yield Stand(gateway, broker, port, await stack.enter_async_context(http))


@contextlib.asynccontextmanager
async def working(worker: Worker) -> AsyncIterator[None]:
    """Run a worker for as long as the block lasts."""
    running = asyncio.create_task(worker.run())
    try:
        yield
    finally:
        worker.stop()
        await running


@contextlib.asynccontextmanager
async def _listening(gateway: Gateway, config: Config) -> AsyncIterator[int]:
    protocols: Any = uvicorn.Config(
        gateway.app(),
        http=HTTPProtocol.behind(Turnstile(), gateway.first_line, respond),
        ws=WebSocketProtocol,
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        ws_max_size=config.server.max_frame,
        ws_per_message_deflate=False,
        ws_ping_interval=None,
    )
    protocols.load()
    state = ServerState()
    server = await asyncio.get_running_loop().create_server(
        partial(protocols.http_protocol_class, protocols, state, {}), "127.0.0.1", 0
    )
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        gateway.say_goodbye()
        for connection in list(state.connections):
            connection.shutdown()
        await eventually(lambda: not state.tasks, within=30, reason="requests ended")


def problem(response: httpx.Response, status: int, code: str) -> str:
    """Check that this is a problem document (RFC 9457) of this kind, and return its detail."""
    document = response.json()
    assert (response.status_code, document["code"]) == (status, code), response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert document["type"] == f"urn:push-gateway:problem:{code}"
    assert document["status"] == status
    assert document["title"]
    detail: str = document["detail"]
    return detail
