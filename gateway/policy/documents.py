"""JSON that strangers send: decoded, and fit for everything that looks at it later."""

import json
from typing import Any

import msgspec

from gateway.errors import BadRequest

MAX_DEPTH = 100
"""Levels of nesting. More than data has that people make, and less than any library refuses that
looks at it later (the schema validator gives up at 255)."""


def decode(body: bytes) -> Any:
    """Decode JSON that a stranger sent.

    A member may come once in an object: RFC 8259 leaves it open which one counts, and what was
    checked here must be what the handler sees.

    Raises:
        BadRequest: it is no JSON, nested too deeply, or has a member twice.
    """
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"expected JSON: {error}") from error
    except RecursionError:
        raise BadRequest(f"expected JSON of at most {MAX_DEPTH} levels") from None
    # Where there are as many colons as members, no member can have been dropped for another one.
    if _members(document) != body.count(b":"):
        _check_names(body.decode())
    return document


def _members(document: object) -> int:
    """Count the members of all objects. Raises `BadRequest` if they are nested too deeply."""
    count = 0
    level: list[object] = [document]
    for _ in range(MAX_DEPTH + 1):
        below: list[object] = []
        for each in level:
            if isinstance(each, dict):
                count += len(each)
                below.extend(each.values())
            elif isinstance(each, list):
                below.extend(each)
        if not below:
            return count
        level = below
    raise BadRequest(f"expected JSON of at most {MAX_DEPTH} levels")


def _once(members: list[tuple[str, object]]) -> None:
    """Check that no name comes twice. What is returned stands for the object, and nobody asks."""
    if len(dict(members)) == len(members):
        return
    seen: set[str] = set()
    for name, _ in members:
        if name in seen:
            raise BadRequest(f"expected each member once but {name[:80]!r} comes twice")
        seen.add(name)


_check_names = json.JSONDecoder(object_pairs_hook=_once, parse_int=len, parse_float=len).decode
