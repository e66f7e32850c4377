"""Schemas: JSON Schema, draft 2020-12, compiled once. `format` is checked too.

No schema makes the gateway open a connection: `$ref` reaches other files, and nothing else.
"""

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import jsonschema_rs

from gateway.errors import ValidationFailed
from gateway.policy.sizes import too_large

DIALECT = "https://json-schema.org/draft/2020-12/schema"

MAX_ERRORS = 10
"""Errors in one answer: more help nobody."""

MAX_NODES = 1000
"""Values in the data beyond which only the first error is given. All errors are found before the
first is seen, which takes seconds in a megabyte where each item is wrong."""

MAX_DETAIL = 200
"""Characters of one error."""


class InvalidSchema(ValueError):
    """The file holds no JSON Schema of draft 2020-12, or one that needs what is not there."""


class Schema:
    """A compiled schema. Safe for concurrent use."""

    __slots__ = ("_validator", "document")

    def __init__(self, document: Any, *, folder: Path) -> None:
        """Compile a schema whose references are relative to `folder`. Raises `InvalidSchema`."""
        self.document = document
        self._validator = _compile(document, folder)

    @classmethod
    def load(cls, file: Path) -> "Schema":
        """Read and compile a file. Raises `InvalidSchema`."""
        try:
            document = json.loads(file.read_bytes())
        except FileNotFoundError:
            raise InvalidSchema(f"there is no file {file}") from None
        except OSError as error:
            raise InvalidSchema(f"cannot read {file}: {error.strerror}") from error
        except json.JSONDecodeError as error:
            raise InvalidSchema(f"{file}:{error.lineno}: {error.msg}") from None
        except (ValueError, RecursionError):  # no UTF-8, or a number of thousands of digits
            raise InvalidSchema(f"{file} is not JSON") from None
        try:
            return cls(document, folder=file.parent)
        except InvalidSchema as error:
            raise InvalidSchema(f"{file}: {error}") from None

    def validate(self, data: Any) -> None:
        """Return if `data` matches.

        Raises:
            ValidationFailed: with up to `MAX_ERRORS` `errors`, each a JSON Pointer (RFC 6901) and
                a sentence. The sentences do not repeat the data: they go to logs and statuses.
        """
        if self._validator.is_valid(data):
            return
        errors = [
            {"pointer": _pointer(error.instance_path), "detail": error.message[:MAX_DETAIL]}
            for error in self._errors(data)
        ]
        first = errors[0]
        where = f"at {first['pointer']}: " if first["pointer"] else ""
        raise ValidationFailed(where + first["detail"], errors=errors)

    def _errors(self, data: Any) -> list[jsonschema_rs.ValidationError]:
        if too_large(data, MAX_NODES):
            try:
                self._validator.validate(data)
            except jsonschema_rs.ValidationError as error:
                return [error]
        return list(self._validator.iter_errors(data))[:MAX_ERRORS]


def _compile(document: Any, folder: Path) -> jsonschema_rs.Draft202012Validator:
    dialect = document.get("$schema", DIALECT) if isinstance(document, dict) else DIALECT
    if dialect not in (DIALECT, DIALECT + "#"):
        raise InvalidSchema(f"expected draft 2020-12 but got $schema {dialect!r}")
    try:
        return jsonschema_rs.Draft202012Validator(
            document,
            validate_formats=True,
            retriever=_read_reference,
            base_uri=folder.absolute().as_uri() + "/",
            mask="the value",
        )
    except ValueError as error:  # ValidationError of the meta-schema is one
        raise InvalidSchema(_compile_problem(error)) from None


def _compile_problem(error: ValueError) -> str:
    if not isinstance(error, jsonschema_rs.ValidationError):
        return str(error)
    message = error.message.partition(" retrieving it failed: ")[2] or error.message
    message = message.removeprefix("InvalidSchema: ")
    where = _pointer(error.instance_path)
    return f"at {where}: {message}" if where else message


def _read_reference(uri: str) -> Any:
    parts = urlsplit(uri)
    if parts.scheme != "file":
        raise InvalidSchema(f"$ref to {uri}: only files can be referred to")
    try:
        return json.loads(Path(url2pathname(parts.path)).read_bytes())
    except OSError as error:
        raise InvalidSchema(f"$ref to {uri}: {error.strerror}") from error
    except ValueError as error:
        raise InvalidSchema(f"$ref to {uri}: {error}") from error


def _pointer(path: list[str | int]) -> str:
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)
