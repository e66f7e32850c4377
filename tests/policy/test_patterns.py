"""Patterns: which paths they match, and whether two of them can mean one name."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.channels import Pattern
from gateway.policy.patterns import PathPattern, overlap


@pytest.mark.parametrize(
    ("path", "parameters"),
    [
        ("/orders/1/ship", {"order": "1"}),
        ("/orders/a b:c/ship", {"order": "a b:c"}),
        ("/orders//ship", None),
        ("/orders/1/2/ship", None),
        ("/orders/1/ship/", None),
        ("/orders/1/ship\n", None),
        ("/ordersX1/ship", None),
    ],
)
def test_a_parameter_takes_one_segment(path: str, parameters: dict[str, str] | None) -> None:
    assert PathPattern("/orders/{order}/ship").match(path) == parameters


def test_literal_text_is_no_regular_expression() -> None:
    assert PathPattern("/a.b").match("/axb") is None
    assert PathPattern("/a.b").match("/a.b") == {}


PARTS = st.lists(st.sampled_from(["a", "b", ":", "{x}", "{y}"]), min_size=1, max_size=4)


@given(PARTS, PARTS)
def test_two_patterns_overlap_exactly_if_a_name_matches_both(
    one: list[str], other: list[str]
) -> None:
    ours, theirs = _pattern(one), _pattern(other)
    names = map("".join, (n for size in range(1, 7) for n in product("ab:", repeat=size)))
    both = any(ours.match(name) is not None and theirs.match(name) is not None for name in names)
    assert overlap(ours.text, theirs.text, ":") is both


def _pattern(parts: list[str]) -> Pattern:
    """A pattern in which each parameter has a name of its own, as it must."""
    return Pattern(
        "".join(f"{{p{index}}}" if part[0] == "{" else part for index, part in enumerate(parts))
    )


def test_long_patterns_are_compared_in_no_time() -> None:
    one = "".join(f"a{{x{index}}}" for index in range(30))
    other = "".join(f"{{x{index}}}a" for index in range(30)) + "b"
    assert overlap(one, other, ":")
    assert not overlap(one + "c", other, ":")
