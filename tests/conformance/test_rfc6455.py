"""RFC 6455: the Autobahn cases against an echo over the very class that `/ws` is made of."""

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket
from websockets.frames import Frame, Opcode

from gateway.broker.broker import Broker as GatewayBroker
from gateway.events import Retention
from gateway.hub.history import History
from gateway.hub.hub import Hub
from gateway.transports.rfc6455 import DetachedSocket
from gateway.transports.uvicorn_http import HTTPProtocol
from gateway.transports.uvicorn_websocket import WebSocketProtocol
from tests.servers import Broker, eventually

MAX_MESSAGE = 32 << 20
"""Bytes: the largest cases send 16 MiB."""


class Echo(DetachedSocket):
    """Sends every message back."""

    __slots__ = ()

    def on_text(self, data: bytes) -> None:
        self.write(Frame(Opcode.TEXT, data).serialize(mask=False))

    def on_binary(self, data: bytes) -> None:
        self.write(Frame(Opcode.BINARY, data).serialize(mask=False))


async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    hub: Hub = websocket.app.state.hub
    websocket.scope["extensions"]["gateway.detach"](
        lambda transport: Echo(transport, hub, max_size=MAX_MESSAGE, heartbeat=25)
    )


@asynccontextmanager
async def echo_server(broker: Broker) -> AsyncIterator[int]:
    """Serve the echo on a free port."""
    app = Starlette(routes=[WebSocketRoute("/", echo)])
    log = GatewayBroker(broker.config, broker.clients).events
    app.state.hub = Hub(History(log, lambda channel: Retention(0)), write_buffer=1 << 20)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            http=HTTPProtocol,
            ws=WebSocketProtocol,
            lifespan="off",
            log_config=None,
            ws_max_size=MAX_MESSAGE,
            ws_per_message_deflate=False,
            ws_ping_interval=None,
        )
    )
    task = asyncio.create_task(server._serve([listener]))
    try:
        await eventually(lambda: server.started, reason="the echo server started")
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await task
        listener.close()


async def test_every_case_of_the_suite_passes_over_detached_connections(
    broker: Broker, tmp_path: Path
) -> None:
    async with echo_server(broker) as port:
        suite = await asyncio.create_subprocess_exec(
            *(str(Path(sys.executable).with_name("kosoku")), "-m", "fuzzingclient"),
            *("-x", "12.*", "-x", "13.*", "-o", str(tmp_path), f"127.0.0.1:{port}"),
            stdout=asyncio.subprocess.DEVNULL,
        )
        assert await suite.wait() == 0
    (agent,) = json.loads((tmp_path / "index.json").read_text()).values()
    assert len(agent) >= 240
    passed = {"OK", "NON-STRICT", "INFORMATIONAL"}
    assert {name: case for name, case in agent.items() if case["behavior"] not in passed} == {}
    assert {name: case for name, case in agent.items() if case["behaviorClose"] not in passed} == {}
