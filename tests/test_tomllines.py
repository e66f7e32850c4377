"""The line of every key, in documents whose lines are known because they were made so."""

import tomllib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.tomllines import KeyPath, lines_of, nearest_line

TRICKY = '''\
title = "a \\" # [b]"   # comment with "quotes and ]
'quoted.key' . "ta\\u0062le" = { x = [1, 2], "y.z" = {} }
when = 1979-05-27 07:32:00
empty = [ ]
many = [
  # nothing
  "a", """
b, ]""", [ 4, [
  5 ] ],
]
text = """"two quotes""""
raw = \'\'\'\'one quote\'\'\'\'
[ table . "inner" ]
a.b.c = 1
a.b.d = 2
[[items]]
name = "first"
[items.sub]
key = 1
[[items.deep]]
x = 1
[[items.deep]]
x = 2
[[items]]
[[items.deep]]
x = 3
'''


def test_the_lines_of_a_tricky_document() -> None:
    lines = lines_of(TRICKY)
    expected: dict[KeyPath, int] = {
        ("title",): 1,
        ("quoted.key",): 2,
        ("quoted.key", "table"): 2,
        ("quoted.key", "table", "x"): 2,
        ("quoted.key", "table", "x", 1): 2,
        ("quoted.key", "table", "y.z"): 2,
        ("when",): 3,
        ("empty",): 4,
        ("many",): 5,
        ("many", 0): 7,
        ("many", 1): 7,
        ("many", 2): 8,
        ("many", 2, 0): 8,
        ("many", 2, 1): 8,
        ("many", 2, 1, 0): 9,
        ("text",): 11,
        ("raw",): 12,
        ("table",): 13,
        ("table", "inner"): 13,
        ("table", "inner", "a"): 14,
        ("table", "inner", "a", "b", "c"): 14,
        ("table", "inner", "a", "b", "d"): 15,
        ("items",): 16,
        ("items", 0): 16,
        ("items", 0, "name"): 17,
        ("items", 0, "sub"): 18,
        ("items", 0, "sub", "key"): 19,
        ("items", 0, "deep"): 20,
        ("items", 0, "deep", 0): 20,
        ("items", 0, "deep", 0, "x"): 21,
        ("items", 0, "deep", 1): 22,
        ("items", 0, "deep", 1, "x"): 23,
        ("items", 1): 24,
        ("items", 1, "deep", 0): 25,
        ("items", 1, "deep", 0, "x"): 26,
    }
    assert {path: lines.get(path) for path in expected} == expected
    assert every_path(tomllib.loads(TRICKY)) <= lines.keys()


def test_what_has_no_line_has_that_of_its_table() -> None:
    lines = lines_of("[a]\nb = 1\n")
    assert nearest_line(lines, ("a", "c", 3)) == 1
    assert nearest_line(lines, ("a", "b", "d")) == 2
    assert nearest_line(lines, ("x",)) == 0


def every_path(value: Any, path: KeyPath = ()) -> set[KeyPath]:
    paths = {path} if path else set()
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    return paths.union(*(every_path(item, (*path, key)) for key, item in items))


SCALARS = st.sampled_from(
    [
        "1",
        "-1.5e3",
        "true",
        "1979-05-27T07:32:00Z",
        "'a # ] }'",
        '"a \\" # ] } \\\\"',
        '"""\n"a" ]\n# b\n"""',
        "'''\n'x'\n'''",
        '""""""',
        "''''''",
        '"""\\\n  a\\"""b"""',
    ]
)
SPACES = st.sampled_from(["", " ", "\n", "  # ] } \" '\n", "\n\n\t"])
KEYS = st.sampled_from(["a", "b-c", "1", '"d.e"', "'f # g'", '"h\\u0069"'])


@st.composite
def arrays(draw: st.DrawFn, values: st.SearchStrategy[str]) -> str:
    items = draw(st.lists(st.tuples(SPACES, values, SPACES), max_size=3))
    last = draw(st.sampled_from(["", ","])) if items else ""
    return "[" + ",".join("".join(item) for item in items) + last + draw(SPACES) + "]"


@st.composite
def inline_tables(draw: st.DrawFn, values: st.SearchStrategy[str]) -> str:
    keys = draw(st.lists(KEYS, unique=True, max_size=3))
    return "{" + ", ".join(f"{key} = {draw(values)}" for key in keys) + "}"


VALUES = st.recursive(SCALARS, lambda values: arrays(values) | inline_tables(values), max_leaves=6)


@given(st.lists(st.tuples(SPACES, st.sampled_from(["[{}]", "[[{}]]"]), VALUES, KEYS), max_size=5))
def test_keys_are_found_behind_any_values(parts: list[tuple[str, str, str, str]]) -> None:
    text = ""
    expected: dict[KeyPath, int] = {}
    for index, (space, header, value, key) in enumerate(parts):
        name = f"t{index}"
        table: KeyPath = (name, 0) if header == "[[{}]]" else (name,)
        text += space + "\n" + header.format(name)
        expected[table] = text.count("\n") + 1
        text += f" # {value.partition(chr(10))[0]}\n{key} = {value}\nlast = 0"
        expected[*table, "last"] = text.count("\n") + 1
    lines = lines_of(text)
    assert {path: lines.get(path) for path in expected} == expected
    assert every_path(tomllib.loads(text)) <= lines.keys()
