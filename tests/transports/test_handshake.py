"""The handshake: the usual one is answered by the short way, and as by the long one."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.datastructures import Headers
from websockets.http11 import Request
from websockets.server import ServerProtocol

from gateway.principals import Principal
from gateway.transports.upgrade import answer
from tests.contract.serving import DETACHED, serving
from tests.contract.talking import REQUEST, raw
from tests.servers import RunningServer

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
USUAL = [
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", KEY),
]
NAMES = st.sampled_from([*(name for name, _ in USUAL), "Sec-WebSocket-Protocol", "Origin", "Host"])
VALUES = st.sampled_from(
    [
        *("websocket", "WebSocket", "Upgrade", "keep-alive, Upgrade", "13", "8", "", "chat", KEY),
        *(KEY[:-1], KEY + "=", "dGhlIHNhbXBsZSBub25jZR==", "dGhlIHNhbXBsZSBub25jZ===", "AAAA"),
    ]
)
HEADERS = st.lists(st.tuples(NAMES, VALUES), max_size=4)


def answers(headers: list[tuple[str, str]]) -> tuple[str | int, str | int]:
    """Return the key or the status that is answered, by us and by the library alone."""
    ours = answer(b"/ws", [(name.lower().encode(), value.encode()) for name, value in headers])
    response = ServerProtocol().accept(Request("/ws", Headers(headers)))
    return (
        ours if isinstance(ours, str) else int(ours.split()[1]),
        response.headers["Sec-WebSocket-Accept"]
        if response.status_code == 101
        else response.status_code,
    )


@given(kept=st.sets(st.sampled_from(USUAL)), more=HEADERS)
def test_it_is_answered_as_the_library_would(
    kept: set[tuple[str, str]], more: list[tuple[str, str]]
) -> None:
    ours, theirs = answers([*kept, *more])
    assert ours == theirs


@pytest.mark.parametrize("more", [[], [("Origin", "https://a")]])
def test_the_usual_one_is_agreed_to(more: list[tuple[str, str]]) -> None:
    ours, theirs = answers([*USUAL, *more])
    assert ours == theirs == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


class Slow:
    """A source of principals that takes its time."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.answers = asyncio.Event()

    async def principal(self, token: str, address: str) -> Principal | None:
        self.asked.set()
        await self.answers.wait()
        return None

    async def run(self) -> None:
        await asyncio.Event().wait()


async def test_one_that_is_under_way_when_the_gateway_stops_is_told_so(
    valkey: RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    slow = Slow()
    request = REQUEST.replace(b"\r\n\r\n", b"\r\nAuthorization: Bearer x\r\n\r\n")
    async with (
        serving(valkey, DETACHED, sources=[slow]) as gateway,
        raw(gateway.port, request) as (reader, _),
    ):
        await slow.asked.wait()
        gateway.stop_connections()
        said = await asyncio.wait_for(reader.read(), 30)
        assert said.startswith(b"HTTP/1.1 503 ")
        assert b"urn:push-gateway:problem:shutting-down" in said
        slow.answers.set()
        await gateway.ended()
    assert not [each for each in caplog.records if each.levelname in ("WARNING", "ERROR")]
