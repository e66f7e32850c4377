"""Handshakes that are unusual, and what comes of them: most are parsed once, these twice."""

import asyncio

import pytest

from tests.api.stand import Stand

HEADERS = (
    b"Host: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


async def status(api: Stand, line: bytes, headers: bytes = HEADERS) -> bytes:
    """Send a request and return the status of the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    try:
        async with asyncio.timeout(30):
            writer.write(line + b"\r\n" + headers + b"\r\n")
            return (await reader.readline())[9:12]
    finally:
        writer.transport.abort()


@pytest.mark.parametrize("query", ["?channel=orders", "?channel=" + "&channel=".join("a" * 600)])
async def test_a_request_may_be_short_or_long(api: Stand, query: str) -> None:
    assert await status(api, b"GET /ws%b HTTP/1.1" % query.encode()) == b"101"


async def test_headers_may_hold_what_is_not_ascii(api: Stand) -> None:
    assert await status(api, b"GET /ws HTTP/1.1", HEADERS + b"X: \xe9\r\n") == b"101"


@pytest.mark.parametrize(
    ("line", "headers"),
    [
        (b"POST /ws HTTP/1.1", HEADERS),
        (b"GET /ws?channel=\xe9 HTTP/1.1", HEADERS),
        (b"GET /ws HTTP/1.1", HEADERS.replace(b"13", b"12")),
        (b"GET /ws HTTP/1.1", HEADERS.replace(b"Sec-WebSocket-Key", b"Sec-WebSocket-Lock")),
        (b"GET /ws HTTP/1.1", HEADERS + b"Content-Length: 5\r\n"),
    ],
)
async def test_what_is_no_handshake_is_refused(api: Stand, line: bytes, headers: bytes) -> None:
    assert (await status(api, line, headers))[:1] == b"4"
