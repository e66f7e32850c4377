"""What counts as the same request."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import idempotency
from gateway.errors import BadRequest
from gateway.events import Event
from gateway.idempotency import NONE, of_command, of_event


def test_the_same_command_has_the_same_identity_however_its_members_are_ordered() -> None:
    first = of_command("k", "/orders", {"a": 1, "b": {"c": 2, "d": 3}})
    assert of_command("k", "/orders", {"b": {"d": 3, "c": 2}, "a": 1}) == first


@pytest.mark.parametrize(
    ("path", "data"), [("/orders", {"a": 2}), ("/others", {"a": 1}), ("/orders", [["a", 1]])]
)
def test_another_command_under_the_same_key_has_another_fingerprint(
    path: str, data: object
) -> None:
    first, other = of_command("k", "/orders", {"a": 1}), of_command("k", path, data)
    assert other.name == first.name
    assert other.fingerprint != first.fingerprint


def test_another_key_has_another_name() -> None:
    assert of_command("k", "/orders", 1).name != of_command("l", "/orders", 1).name


@pytest.mark.parametrize("key", ["", " ", "a b", "ä", "a\n", "k" * 256, "\x00"])
def test_a_key_that_is_none_is_refused(key: str) -> None:
    with pytest.raises(BadRequest, match="expected an idempotency key of 1 to 255"):
        of_command(key, "/orders", {})


def test_events_are_known_by_source_and_id() -> None:
    first = of_event(Event("t", id="1", source="/a", data={"n": 1}))
    assert of_event(Event("t", id="1", source="/a", data={"n": 1})) == first
    assert of_event(Event("t", id="1", source="/b", data={"n": 1})).name != first.name
    again = of_event(Event("t", id="1", source="/a", data={"n": 2}))
    assert again.name == first.name
    assert again.fingerprint != first.fingerprint


def test_a_source_and_an_id_are_not_confused_with_another_pair() -> None:
    assert (
        of_event(Event("t", id="bc", source="a")).name
        != of_event(Event("t", id="c", source="ab")).name
    )


def test_an_event_without_an_id_has_no_identity() -> None:
    assert of_event(Event("t", source="/a")) == NONE


@given(st.lists(st.binary(max_size=4), max_size=4), st.lists(st.binary(max_size=4), max_size=4))
def test_two_lists_of_parts_have_the_same_digest_only_if_they_are_equal(
    first: list[bytes], second: list[bytes]
) -> None:
    digests = idempotency._digest(*first), idempotency._digest(*second)
    assert (digests[0] == digests[1]) == (first == second)
