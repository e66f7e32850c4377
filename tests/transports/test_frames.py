"""What goes over the wire, against parsers that are not ours."""

import json
import re

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Close, Frame, Opcode
from websockets.protocol import CLIENT, OPEN, Protocol

from gateway.errors import BadFrame, CloseCode
from gateway.hub.subscription import Encoding, Standing
from gateway.transports import frames


def received(data: bytes) -> list[Frame]:
    """The frames in what a server sent, as a client of another make sees them."""
    client = Protocol(CLIENT, state=OPEN, max_size=None)
    client.receive_data(data)
    assert client.parser_exc is None
    found = client.events_received()
    assert all(isinstance(each, Frame) for each in found)
    return [each for each in found if isinstance(each, Frame)]


def parsed(text: bytes) -> frames.ClientFrame | BadFrame:
    """What `parse` makes of a text. Raises whatever it must not raise."""
    try:
        return frames.parse(text)
    except BadFrame as error:
        return error


@given(st.binary(max_size=300))
def test_whatever_comes_is_a_frame_or_a_bad_one(data: bytes) -> None:
    outcome = parsed(data)
    if isinstance(outcome, BadFrame):
        assert isinstance(outcome.extra["fatal"], bool)
    else:
        requests = [outcome.subscribe, outcome.unsubscribe, outcome.command]
        assert [*requests, outcome.authenticate, outcome.refresh].count(None) == 4


scalars = st.none() | st.booleans() | st.integers() | st.floats(-1e9, 1e9) | st.text(max_size=9)
members = st.sampled_from(
    ["id", "subscribe", "unsubscribe", "command", "authenticate", "channel", "token", "more"]
)
objects = st.dictionaries(members, scalars, max_size=3)


@given(st.dictionaries(members, scalars | objects, max_size=4))
def test_any_object_is_a_frame_or_refused_under_its_own_id(document: dict[str, object]) -> None:
    outcome = parsed(json.dumps(document).encode())
    identity = document.get("id")
    if isinstance(outcome, BadFrame):
        assert outcome.extra["fatal"] is False
        assert outcome.extra["id"] == (identity if isinstance(identity, int | str) else None)
    else:
        assert outcome.id == identity


@pytest.mark.parametrize(
    "text", [b"[" * 60_000, b'{"id":' * 20_000, b'{"command":{"data":' + b"[" * 9000]
)
def test_what_is_nested_too_deeply_is_a_bad_frame(text: bytes) -> None:
    with pytest.raises(BadFrame) as caught:
        frames.parse(text)
    assert caught.value.extra == {"id": None, "fatal": True}


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 200_000])
def test_a_text_frame_of_any_size_is_read_back(size: int) -> None:
    payload = b"x" * size
    assert received(frames.text(payload)) == [Frame(Opcode.TEXT, payload)]


@pytest.mark.parametrize("code", CloseCode)
def test_every_close_code_has_a_reason(code: CloseCode) -> None:
    (frame,) = received(frames.close(code, frames.REASONS[code]))
    assert Close.parse(frame.data) == Close(code, frames.REASONS[code])
    assert re.fullmatch("[a-z ]+", frames.REASONS[code])


EVENTS = [(b"e-1-0", b'{"type":"one"}'), (b"e-2-7", b'{"type":"two","data":"\xc3\xbc"}')]


def test_events_that_are_joined_are_frames_still() -> None:
    encoding: Encoding = frames.WEBSOCKET_FRAMES
    data = b"".join(encoding.event(*event) for event in EVENTS) + encoding.heartbeat(b"e-3-0")
    *events, ping, beat = received(data)
    assert [json.loads(bytes(each.data)) for each in events] == [
        {"event": {"type": "one"}, "position": "e-1-0"},
        {"event": {"type": "two", "data": "ü"}, "position": "e-2-7"},
    ]
    assert ping.opcode is Opcode.PING
    assert json.loads(bytes(beat.data)) == {"position": "e-3-0"}
    assert [each.opcode for each in received(encoding.heartbeat(None))] == [Opcode.PING]


def test_lines_are_the_payloads_of_frames() -> None:
    lines: Encoding = frames.WEBSOCKET_LINES
    whole: Encoding = frames.WEBSOCKET_FRAMES
    for event in EVENTS:
        (frame,) = received(whole.event(*event))
        assert lines.event(*event).splitlines() == [bytes(frame.data)]
    assert lines.heartbeat(None) == b""


def test_blocks_in_chunks_are_a_body() -> None:
    blocks: Encoding = frames.EVENT_STREAM_BLOCKS
    chunks: Encoding = frames.EVENT_STREAM_CHUNKS
    plain = b"".join(blocks.event(*event) for event in EVENTS) + blocks.heartbeat(b"e-3-0")
    chunked = b"".join(chunks.event(*event) for event in EVENTS) + chunks.heartbeat(b"e-3-0")
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("Host", "test")]))
    client.send(h11.EndOfMessage())
    client.receive_data(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked + frames.LAST_CHUNK
    )
    body = b""
    while not isinstance(event := client.next_event(), h11.EndOfMessage):
        if isinstance(event, h11.Data):
            body += event.data
    assert body == plain
    assert plain.decode() == (
        'id: e-1-0\ndata: {"type":"one"}\n\n'
        'id: e-2-7\ndata: {"type":"two","data":"ü"}\n\n'
        ": heartbeat\nevent: position\nid: e-3-0\ndata: {}\n\n"
    )
    assert blocks.heartbeat(None) == b": heartbeat\n\n"


def test_the_oldest_position_is_found_by_its_numbers() -> None:
    places = {"a": "e-100-10", "b": "e-100-9", "c": "e-99-11", "d": "e-1000-0"}
    standings = {name: Standing(at, True) for name, at in places.items()}
    block = frames.sse_subscribed(standings, {})
    assert b"\nid: e-99-11\n" in block
