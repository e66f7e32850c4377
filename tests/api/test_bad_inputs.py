"""Bad inputs over a raw connection: each gets the answer that the document says, and no more."""

import asyncio
import json

import pytest

from tests.api.bad_inputs import Bad, everything, sized, table, written
from tests.api.stand import Stand


@pytest.mark.parametrize("bad", everything(), ids=lambda bad: bad.what)
async def test_it_gets_the_answer_that_is_written_down(
    api: Stand, bad: Bad, caplog: pytest.LogCaptureFixture
) -> None:
    status, headers, body = await api.raw(bad.request)
    document = json.loads(body)
    assert (status, document["code"]) == (bad.status, bad.code), body
    assert headers["content-type"] == "application/problem+json"
    assert (document["status"], document["type"]) == (
        status,
        f"urn:push-gateway:problem:{bad.code}",
    )
    assert len(body) < 1000
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]


def test_the_document_shows_what_is_tried() -> None:
    assert written() == table()


async def test_a_body_behind_an_offer_of_another_protocol_is_read(api: Stand) -> None:
    """As Java's client sends it."""
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n"
    bad, good = b'{"customer":"c"}', b'{"customer":"c","qty":1}'
    status, _, body = await api.raw(sized(offer, bad, path=b"/orders"))
    assert (status, json.loads(body)["detail"]) == (422, '"qty" is a required property')
    status, _, body = await api.raw(sized(offer, good, path=b"/orders"))
    assert status == 202, body


@pytest.mark.parametrize("cut", [1, 30, 120, 171, 172, 180])
async def test_such_a_body_may_come_in_pieces(api: Stand, cut: int) -> None:
    offer = b"Connection: Upgrade\r\nUpgrade: h2c\r\nX: " + b"x" * 20 + b"\r\n"
    request = sized(offer, b'{"customer":"c","qty":1}', path=b"/orders")
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    try:
        for _ in range(2):  # what comes after it is a request of its own
            for piece in (request[:cut], request[cut:]):
                writer.write(piece)
                await writer.drain()
                assert (await api.http.get("/healthz")).status_code == 200  # it was read by itself
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
            assert head.startswith(b"HTTP/1.1 202 "), head
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            await asyncio.wait_for(reader.readexactly(length), 30)
    finally:
        writer.transport.abort()
