"""JSON of strangers, against Python's own reading of it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import BadRequest
from gateway.policy.documents import MAX_DEPTH, decode

names = st.sampled_from(["a", "b", ":", '"', "é", "a:b"]) | st.text(max_size=3)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
    max_leaves=20,
)


@given(values, st.booleans(), st.sampled_from([None, 1]))
def test_every_document_is_read_as_it_was_meant(
    value: Any, ascii: bool, indent: int | None
) -> None:
    text = json.dumps(value, ensure_ascii=ascii, indent=indent)
    assert decode(text.encode()) == value


@given(st.lists(st.tuples(names, values), min_size=1, max_size=5), values)
def test_an_object_is_refused_exactly_if_a_member_comes_twice(
    members: list[tuple[str, Any]], around: Any
) -> None:
    inside = ",".join(f"{json.dumps(name)}:{json.dumps(value)}" for name, value in members)
    text = f'[{{"outside":{{{inside}}}}},{json.dumps(around)}]'.encode()
    if len({name for name, _ in members}) == len(members):
        assert decode(text) == [{"outside": dict(members)}, around]
    else:
        with pytest.raises(BadRequest, match="comes twice"):
            decode(text)


@pytest.mark.parametrize(
    ("opening", "closing", "most"),
    [("[", "]", MAX_DEPTH), ('{"a":', "}", MAX_DEPTH), ('[{"a":', "}]", MAX_DEPTH // 2)],
)
def test_nesting_has_a_bound(opening: str, closing: str, most: int) -> None:
    decode((opening * most + "1" + closing * most).encode())
    for more in (most + 1, 50 * most):
        with pytest.raises(BadRequest, match="at most 100 levels"):
            decode((opening * more + "1" + closing * more).encode())


def test_a_name_that_comes_twice_among_very_many_is_found_at_once() -> None:
    text = ",".join(f'"n{number}":0' for number in range(50_000))
    with pytest.raises(BadRequest, match="'n49999' comes twice"):
        decode(f'{{{text},"n49999":1}}'.encode())
