"""Schemas: what they refuse and how they say it, and that they reach no further than files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import ValidationFailed
from gateway.policy.schemas import MAX_ERRORS, MAX_NODES, InvalidSchema, Schema

ORDER = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "required": ["sku", "qty"],
    "properties": {
        "sku": {"type": "string", "pattern": "^[a-z0-9-]+$"},
        "qty": {"type": "integer", "minimum": 1},
        "mail": {"format": "email"},
        "a/b": {"type": "null"},
        "lines": {"type": "array", "items": {"type": "integer"}},
    },
    "additionalProperties": False,
}

Load = Callable[..., Schema]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Write a schema and others beside it, and load it from its file."""

    def written(document: Any, **others: Any) -> Schema:
        for name, other in {"main": document, **others}.items():
            (tmp_path / f"{name}.json").write_text(json.dumps(other))
        return Schema.load(tmp_path / "main.json")

    return written


def errors(schema: Schema, data: Any) -> list[dict[str, str]]:
    with pytest.raises(ValidationFailed) as caught:
        schema.validate(data)
    found = caught.value.extra["errors"]
    assert isinstance(found, list)
    return found


def test_data_that_matches_passes(load: Load) -> None:
    load(ORDER).validate({"sku": "tea-250", "qty": 2, "lines": [1, 2]})


def test_every_error_has_a_pointer_and_a_sentence(load: Load) -> None:
    data = {"sku": "TEA", "qty": 0, "mail": "x", "a/b": 1, "lines": [1, "two"], "more": 1}
    found = {error["pointer"]: error["detail"] for error in errors(load(ORDER), data)}
    assert found.keys() == {"/sku", "/qty", "/mail", "/a~1b", "/lines/1", ""}
    assert found["/qty"] == "the value is less than the minimum of 1"
    assert "'more' was unexpected" in found[""]


def test_a_missing_member_is_named(load: Load) -> None:
    assert [error["detail"] for error in errors(load(ORDER), {"qty": 1})] == [
        '"sku" is a required property'
    ]


def test_the_sentences_do_not_repeat_the_data(load: Load) -> None:
    for each in errors(load(ORDER), {"sku": "SECRET" * 1000, "qty": "SECRET"}):
        assert "SECRET" not in each["detail"]


def test_the_detail_is_the_first_error(load: Load) -> None:
    with pytest.raises(ValidationFailed) as caught:
        load(ORDER).validate({"sku": "tea", "qty": 0})
    assert caught.value.detail == "at /qty: the value is less than the minimum of 1"


def test_errors_are_bounded(load: Load) -> None:
    schema = load(ORDER)
    order = {"sku": "tea", "qty": 1}
    assert len(errors(schema, {**order, "lines": ["x"] * 100})) == MAX_ERRORS
    assert len(errors(schema, {**order, "lines": ["x"] * MAX_NODES})) == 1
    assert len(errors(schema, {f"{'x' * 50}{n}": 1 for n in range(100)})[0]["detail"]) <= 200


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"type": "strin"}, "at /type: "),
        ({"properties": {"a": {"minimum": "1"}}}, "at /properties/a/minimum: "),
        ({"pattern": "("}, "at /pattern: "),
        ([], "is not of types"),
        ({"const": "\ud800"}, "surrogates not allowed"),
        ({"$id": "::"}, "Invalid URI reference"),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, "expected draft 2020-12 but got"),
        ({"$schema": 1}, "expected draft 2020-12 but got $schema 1"),
        ({"$ref": "#/$defs/missing"}, "/$defs/missing"),
        ({"$ref": "missing.json"}, "missing.json: No such file"),
        ({"$ref": "broken.json"}, "broken.json: "),
        ({"$ref": "https://127.0.0.1/x.json"}, "only files can be referred to"),
        ({"$id": "https://127.0.0.1/", "$ref": "x.json"}, "only files can be referred to"),
    ],
)
def test_what_is_no_schema_is_refused(
    load: Load, tmp_path: Path, document: Any, message: str
) -> None:
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(InvalidSchema) as caught:
        load(document)
    assert str(caught.value).startswith(str(tmp_path / "main.json"))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{\n"a": }', ":2: Expecting value"),
        (b"\xff", " is not JSON"),
        (b"[" * 10**5, " is not JSON"),
        (b'{"maximum": ' + b"9" * 5000 + b"}", " is not JSON"),
    ],
)
def test_what_is_no_json_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "main.json").write_bytes(content)
    with pytest.raises(InvalidSchema) as caught:
        Schema.load(tmp_path / "main.json")
    assert str(caught.value).startswith(f"{tmp_path / 'main.json'}{message}")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSchema, match="there is no file"):
        Schema.load(tmp_path / "main.json")
    with pytest.raises(InvalidSchema, match="cannot read"):
        Schema.load(tmp_path)


def test_references_reach_files_beside_the_schema(load: Load) -> None:
    schema = load(
        {"properties": {"qty": {"$ref": "units.json#/$defs/pieces"}}},
        units={"$defs": {"pieces": {"type": "integer"}}},
    )
    schema.validate({"qty": 1})
    assert errors(schema, {"qty": "one"})[0]["pointer"] == "/qty"
