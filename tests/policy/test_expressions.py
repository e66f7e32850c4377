"""Expressions: what they give, what they refuse, and that the short cuts give the same as CEL."""

import datetime
from collections.abc import Callable
from typing import Any

import cel
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.policy.expressions import (
    MAX_NODES,
    MAX_SOURCE,
    EvaluationFailed,
    Expression,
    InvalidExpression,
)

NAMES = ("data", "path", "type", "subject")


def compiled(source: str) -> Expression:
    return Expression(source, variables=NAMES)


def value(source: str, data: Any = None, **variables: Any) -> Any:
    return compiled(source).value({"data": data, "path": {}, "type": "t", **variables})


def failure(source: str, data: Any = None) -> str:
    with pytest.raises(EvaluationFailed) as caught:
        value(source, data)
    return str(caught.value)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("'orders'", "orders"),
        ('"orders"', "orders"),
        ("data.customer", "c-1"),
        ("'orders:' + data.customer", "orders:c-1"),
        ("type + ':' + data.deep.er", "t:x"),
        (" data.customer\n+ ':' ", "c-1:"),
        ("'tab\\t'", "tab\t"),
        (r"r'raw\t' + data.customer", r"raw\tc-1"),
        ("'''three''' + 'one'", "threeone"),
        ("string(data.qty) + '!'", "3!"),
        ("data.qty", 3),
        ("data.deep", {"er": "x"}),
        ("data.nothing", None),
        ("has(data.tier) && data.tier == 'x'", False),
        ("data.items.exists(item, item.qty > 2)", True),
        ("data.items.map(data, data.qty)", [1, 3]),
        ("data['customer'].startsWith('c')", True),
        ("data.customer.size() + size(data)", 9),
        ("data == data ? 'same' : 'other' // data.missing", "same"),
    ],
)
def test_values(source: str, expected: object) -> None:
    data = {
        "customer": "c-1",
        "qty": 3,
        "deep": {"er": "x"},
        "nothing": None,
        "items": [{"qty": 1}, {"qty": 3}],
        "more": "unused",
    }
    assert value(source, data) == expected


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "it ends at character 1, and something is missing"),
        ("data.x +", "it ends at character 9, and something is missing"),
        ("data.x ++ 1", "not an expression: extraneous input"),
        ("'open", "not an expression: token recognition error"),
        ("dato.x", "unknown variable 'dato'; did you mean 'data'?"),
        ("zebra", "unknown variable 'zebra'; there are data, path, subject, type"),
        (".data.x", "unknown variable '.data'"),
        ("data.x.startWith('a')", "unknown function 'startWith'; did you mean 'startsWith'?"),
        ("data.all(x, x > y)", "unknown variable 'y'"),
        ("x > 1 && 'all(x, 1)' == ''", "unknown variable 'x'"),
        ("'" + "x" * MAX_SOURCE + "'", "at most 2000 characters but got 2002"),
        ("(" * 500 + "1" + ")" * 500, "not an expression"),
        ("99999999999999999999", "not an expression: invalid int literal"),
    ],
)
def test_what_is_no_expression_is_found_when_compiling(source: str, message: str) -> None:
    with pytest.raises(InvalidExpression) as caught:
        compiled(source)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("data.missing", "there is no member 'missing'"),
        ("'x' + data.missing", "there is no member 'missing'"),
        ("data.missing.x == 1", "there is no member 'missing'"),
        ("data['missing']", "there is no member 'missing'"),
        ("'x' + data.number", "Unsupported operation: string + int"),
        ("data.text.x", "No such overload: the operation is not defined"),
        ("data.number / 0", "division by zero"),
        ("data.number + 9223372036854775807", "Arithmetic overflow in 'add'"),
        ("data.list[5]", "index out of bounds: 5"),
        ("data.number.contains('x')", "'contains' cannot be applied to these values"),
        ("data.text.matches('(')", "Function 'matches' error: '(' not a valid regex"),
        ("int(data.text)", "Function 'int' error"),
        ("timestamp(data.text)", "Function 'timestamp' error"),
    ],
)
def test_what_has_no_value_says_why(source: str, reason: str) -> None:
    data = {"number": 1, "text": "a", "list": [1]}
    assert failure(source, data).startswith(f"{source}: {reason}")


def test_results_have_the_type_that_was_asked_for() -> None:
    given_data = {
        "data": {"yes": True, "one": 1, "text": "a", "list": ["a", "b"], "mixed": ["a", 1]}
    }
    assert compiled("data.yes").boolean(given_data) is True
    assert compiled("data.text").text(given_data) == "a"
    assert compiled("data.text").texts(given_data) == ["a"]
    assert compiled("data.list").texts(given_data) == ["a", "b"]
    assert compiled("[]").texts(given_data) == []
    with pytest.raises(EvaluationFailed, match="expected true or false but got 1"):
        compiled("data.one").boolean(given_data)
    with pytest.raises(EvaluationFailed, match="expected a string but got true"):
        compiled("data.yes").text(given_data)
    with pytest.raises(EvaluationFailed, match="expected a string or a list of them but got null"):
        compiled("null").texts(given_data)
    with pytest.raises(EvaluationFailed, match="expected a string or a list of them"):
        compiled("data.mixed").texts(given_data)


@pytest.mark.parametrize(
    ("source", "mentions"),
    [
        ("'x'", {}),
        ("data.a.b + data . c", {"data": {"a", "c"}}),
        ("data.a.startsWith('data') && type == 'x'", {"data": {"a"}, "type": None}),
        ("data.size() > 1 || data.a", {"data": None}),
        ("data['a'] == path.order", {"data": None, "path": {"order"}}),
        ("has(data.a) ? '''data''' : r'\\' + data.b // data", {"data": {"a", "b"}}),
        ("data.list.all(data, data.x)", {"data": None}),
    ],
)
def test_what_an_expression_looks_at_is_known(
    source: str, mentions: dict[str, set[str] | None]
) -> None:
    assert compiled(source).mentions == mentions


def test_only_what_is_looked_at_counts() -> None:
    data = {"huge": list(range(MAX_NODES * 2)), "qty": 1}
    assert value("data.qty + 1", data) == 2
    assert failure("data.huge.size() > 1", data).endswith("it looks at more than 2000 values")
    assert failure("size(data) > 1", data).endswith("it looks at more than 2000 values")


def test_data_of_any_depth_does_no_harm() -> None:
    deep: dict[str, Any] = {}
    for _ in range(100_000):
        deep = {"a": deep}
    assert failure("data.a == data.a", {"a": deep}).endswith("it looks at more than 2000 values")
    assert value("has(data.a) || true", {"b": deep}) is True


def test_a_regular_expression_cannot_take_long() -> None:
    assert value("data.s.matches('(a|aa)+$')", {"s": "a" * 100_000 + "b"}) is False


def test_a_panic_of_the_implementation_is_a_failure(capfd: pytest.CaptureFixture[str]) -> None:
    reason = failure("timestamp('9999-12-31T23:59:59Z') - data.x", {"x": datetime.timedelta.min})
    assert reason.endswith(": Internal evaluation error")
    assert "panicked" in capfd.readouterr().err


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcd"), inner),
    max_leaves=8,
)
LITERALS = st.text(st.characters(blacklist_characters="'\"\\\n\r", codec="utf-8"), max_size=4)
FIELDS = st.lists(st.sampled_from("abcd"), max_size=3).map(lambda names: ".".join(["data", *names]))
TERMS = st.one_of(LITERALS.map("'{}'".format), LITERALS.map('"{}"'.format), FIELDS)
SPACES = st.sampled_from(["", " ", "\n", "\t "])


@st.composite
def simple_forms(draw: st.DrawFn) -> str:
    terms = draw(st.lists(TERMS, min_size=1, max_size=4))
    return "+".join(draw(SPACES) + term + draw(SPACES) for term in terms)


def outcome(evaluate: Callable[[], object]) -> list[str] | None:
    """The value as sorted characters, or None if there is none.

    As text, because nan is not itself and True is 1; sorted, because the maps of CEL have no order.
    """
    try:
        return sorted(repr(evaluate()))
    except Exception:  # noqa: BLE001  any error of CEL counts
        return None


@given(simple_forms(), st.dictionaries(st.sampled_from("abcd"), JSON))
def test_a_simple_form_gives_what_cel_gives(source: str, data: dict[str, Any]) -> None:
    try:
        cel.compile(source)
    except ValueError:
        assume(False)
    ours = outcome(lambda: compiled(source).value({"data": data}))
    assert ours == outcome(lambda: cel.evaluate(source, {"data": data}))


SHAPES = st.sampled_from(
    [
        "{0} == {1}",
        "has(data.a) && {0} == {1}",
        "has(data.a) ? {0} : {1}",
        "{0}.size() > {1}.size()",
        "[{0}, {1}]",
        "{0} in {1}",
        "{0}.exists(data, data == {1})",
        "data['a'] == {0} || {1} != 'data.b'",
        "string({0}) + r'\\' + string({1}) // {0}",
        "{0}.a.contains({1})",
    ]
)


@given(SHAPES, FIELDS, FIELDS, st.dictionaries(st.sampled_from("abcd"), JSON))
def test_what_is_not_looked_at_changes_nothing(
    shape: str, one: str, other: str, data: dict[str, Any]
) -> None:
    source = shape.format(one, other)
    ours = outcome(lambda: compiled(source).value({"data": data}))
    assert ours == outcome(lambda: cel.evaluate(source, {"data": data}))
