"""The parser of event streams, by the examples of the specification and however bytes are cut."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.client import eventstream
from gateway.client.eventstream import Block, Parser
from gateway.client.frames import Refused


def parse(*chunks: bytes) -> list[Block]:
    parser = Parser()
    return [block for chunk in chunks for block in parser.feed(chunk)]


def test_data_of_several_lines_is_joined() -> None:
    assert parse(b"data: YHOO\ndata: +2\ndata: 10\n\n") == [Block("message", "YHOO\n+2\n10", "")]


def test_an_id_stays_until_there_is_another() -> None:
    blocks = parse(b"id: 1\ndata: a\n\ndata: b\n\nid\ndata: c\n\n")
    assert blocks == [
        Block("message", "a", "1"),
        Block("message", "b", "1"),
        Block("message", "c", ""),
    ]


def test_only_one_space_after_the_colon_is_taken_away() -> None:
    assert parse(b"data:test\n\ndata:  test\n\n") == [
        Block("message", "test", ""),
        Block("message", " test", ""),
    ]


def test_empty_data_is_dispatched_and_an_unfinished_block_is_not() -> None:
    assert parse(b"data\n\ndata\ndata\n\ndata:") == [
        Block("message", "", ""),
        Block("message", "\n", ""),
    ]


def test_the_name_of_an_event_is_for_that_event() -> None:
    assert parse(b"event: goodbye\ndata: 1\n\ndata: 2\n\n") == [
        Block("goodbye", "1", ""),
        Block("message", "2", ""),
    ]


def test_a_heartbeat_moves_the_id() -> None:
    assert parse(b": heartbeat\nid: 7\n\n") == [Block("message", "", "7")]


def test_a_comment_alone_says_nothing() -> None:
    assert parse(b": heartbeat\n\n:\n\n\n\n") == []


def test_an_id_with_a_null_is_not_taken() -> None:
    assert parse(b"id: 1\0\ndata: a\n\n") == [Block("message", "a", "")]


def test_unknown_fields_are_passed_over() -> None:
    assert parse(b"retry: 3\nfoo: bar\ndata: a\n\n") == [Block("message", "a", "")]


def test_a_byte_order_mark_is_taken_away_once() -> None:
    assert parse(b"\xef\xbb\xbfdata: a\n\n") == [Block("message", "a", "")]


def test_a_block_ends_at_once_whatever_ends_its_lines() -> None:
    for end in (b"\n", b"\r", b"\r\n"):
        assert parse(b"data: a" + end + end) == [Block("message", "a", "")]


def test_a_block_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eventstream, "MAX_BLOCK", 1000)
    with pytest.raises(Refused, match="more than 1000 characters"):
        parse(*[b"data: " + b"x" * 100 + b"\n"] * 20)
    with pytest.raises(Refused, match="more than 1000 characters"):
        parse(*[b"x" * 100] * 20)


lines = st.sampled_from([b"data: \xc3\xa4", b"data", b"id: 5", b"event: e", b": c", b"", b"", b"x"])
ends = st.sampled_from([b"\n", b"\r", b"\r\n"])


@given(
    stream=st.lists(st.tuples(lines, ends).map(b"".join)).map(b"".join),
    cuts=st.lists(st.integers(0, 200)).map(sorted),
)
def test_it_does_not_matter_how_the_bytes_are_cut(stream: bytes, cuts: list[int]) -> None:
    edges = [0, *cuts, len(stream)]
    chunks = [stream[a:b] for a, b in pairwise(edges) if a <= b]
    assert parse(*chunks) == parse(stream)
