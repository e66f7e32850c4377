"""What the gateway says, as structures; and when a no is for good."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.client.following import Backoff
from gateway.client.frames import (
    SPREAD,
    Goodbye,
    Interrupted,
    Received,
    Refused,
    Standing,
    Subscribed,
    closed,
    read_event,
    read_frame,
    refusal,
)


def test_an_event_keeps_the_bytes_that_came() -> None:
    said = read_frame('{"event":{"type":"t", "data":1.50,"channel":"a"},"position":"e-1-0"}')
    assert isinstance(said, Received)
    assert said.encoded == b'{"type":"t", "data":1.50,"channel":"a"}'
    assert (said.channel, said.type, said.data, said.position) == ("a", "t", 1.5, "e-1-0")


def test_every_frame_has_its_meaning() -> None:
    reply = '{"id":1,"subscribed":{"channel":"a","position":"e-1-0","recovered":false}}'
    assert read_frame(reply) == Subscribed("a", "e-1-0", recovered=False)
    assert read_frame('{"position":"e-2-0"}') == Standing("e-2-0")
    assert read_frame('{"goodbye":{"code":4000,"retry_ms":3170}}') == Goodbye(4000, 3170)
    assert read_frame('{"id":2,"unsubscribed":{"channel":"a"}}') is None
    assert read_frame('{"something":"new"}') is None


@pytest.mark.parametrize(
    "text", ["", "[]", "no json", '{"event":[],"position":"e-1-0"}', '{"goodbye":{"code":"x"}}']
)
def test_what_cannot_be_understood_is_final(text: str) -> None:
    with pytest.raises(Refused, match="cannot be read"):
        read_frame(text)


def test_errors_of_the_server_may_pass_and_errors_of_ours_will_not() -> None:
    with pytest.raises(Interrupted, match=r"down \(broker-unavailable\)"):
        read_frame('{"error":{"code":"broker-unavailable","status":503,"detail":"down"}}')
    with pytest.raises(Refused, match=r"not yours \(forbidden\)"):
        read_frame('{"id":3,"error":{"code":"forbidden","status":403,"detail":"not yours"}}')
    assert isinstance(refusal(404, ""), Refused)


def test_a_refusal_that_passes_says_when_and_not_to_all_the_same() -> None:
    text = '{"error":{"code":"quota-exceeded","status":429,"detail":"x","retry_after_ms":10000}}'
    delays = set()
    for _ in range(20):
        with pytest.raises(Interrupted) as interrupted:
            read_frame(text)
        assert interrupted.value.retry_after is not None
        assert 10 <= interrupted.value.retry_after <= 10 * SPREAD
        delays.add(interrupted.value.retry_after)
    assert len(delays) > 1


@pytest.mark.parametrize("code", [None, 1000, 1001, 1006, 1011, 1012, 4000, 4001, 4002, 4003])
def test_after_these_codes_it_comes_back(code: int | None) -> None:
    ending = closed(code, "", None)
    assert isinstance(ending, Interrupted)
    assert ending.retry_after is None


@pytest.mark.parametrize("code", [4500, 4501, 4502, 4503, 4999])
def test_after_these_codes_it_does_not(code: int) -> None:
    assert isinstance(closed(code, "", Goodbye(code, 100)), Refused)


def test_the_goodbye_before_the_close_says_when() -> None:
    ending = closed(4000, "shutdown", Goodbye(4000, 3170))
    assert isinstance(ending, Interrupted)
    assert ending.retry_after == 3.17
    assert str(ending) == "closed with 4000: shutdown"


def test_the_blocks_of_an_event_stream_mean_the_same() -> None:
    data = '{"channels":{"a":{"recovered":true,"position":"e-1-0"}}}'
    assert read_event("subscribed", data, "e-1-0") == [
        Subscribed("a", "e-1-0", recovered=True),
        Standing("e-1-0"),
    ]
    assert read_event("message", '{"channel":"a"}', "e-2-0") == [
        Received(b'{"channel":"a"}', "e-2-0"),
        Standing("e-2-0"),
    ]
    assert read_event("message", "", "e-3-0") == [Standing("e-3-0")]
    assert read_event("presence", "whatever", "e-3-0") == [Standing("e-3-0")]
    assert read_event("goodbye", '{"code":4001,"retry_ms":5}', "") == [Goodbye(4001, 5)]


@pytest.mark.parametrize(
    ("name", "data"), [("message", "{"), ("message", "3"), ("subscribed", "{}"), ("goodbye", "")]
)
def test_a_block_that_cannot_be_understood_is_final(name: str, data: str) -> None:
    with pytest.raises(Refused, match="cannot be read"):
        read_event(name, data, "e-1-0")


@given(st.integers(1, 50))
def test_the_wait_grows_to_its_bound_and_begins_anew_when_all_is_well(attempts: int) -> None:
    backoff = Backoff(first=0.5, longest=20)
    for attempt in range(attempts):
        assert 0 <= backoff.next() <= min(20, 0.5 * 2**attempt)
    backoff.reset()
    assert backoff.next() <= 0.5
