"""TLS handshakes that do not come to an end."""

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest
import uvicorn
import uvloop

from gateway import server
from gateway.certificates import load
from gateway.config import TLSConfig
from gateway.transports.turnstile import Turnstile
from gateway.transports.uvicorn_http import HTTPProtocol
from tests.certificates import Authority

PATIENCE = 30.0


def test_who_begins_one_and_says_no_more_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "HANDSHAKE", 0.3)
    issued = Authority(tmp_path).issue("localhost")
    nobody: Any = None

    async def begin() -> None:
        config = uvicorn.Config(nobody, http=HTTPProtocol, lifespan="off", log_config=None)
        config.http_protocol_class = HTTPProtocol
        config.ssl = load(TLSConfig(certificate=issued.certificate, key=issued.key))
        listener = socket.create_server(("127.0.0.1", 0))
        serving = server._Server(config, nobody, Turnstile())
        await serving.startup([listener])
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        writer.write(bytes([0x16, 3, 1, 2, 0]))  # the beginning of a record
        try:
            async with asyncio.timeout(PATIENCE):
                assert await reader.read() == b""
        finally:
            writer.transport.abort()
            serving.servers[0].close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(begin())
