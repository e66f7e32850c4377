"""What makes a request the same as an earlier one: its name, and a fingerprint of what it asks.

The Idempotency-Key HTTP header field, draft-ietf-httpapi-idempotency-key-header; for events, what
CloudEvents 1.0 says of `source` and `id`: equal ones may be taken for duplicates.
"""

import re
from hashlib import blake2b
from typing import Any, NamedTuple

import msgspec

from gateway.errors import BadRequest
from gateway.events import Event

MAX_KEY = 255
"""Characters of a key. It comes from strangers, but only a digest of it is kept."""

DIGEST = 16
"""Bytes of a name or a fingerprint: too many for two of them to meet by accident or by search."""

_VISIBLE = re.compile(rf"[!-~]{{1,{MAX_KEY}}}")


class Identity(NamedTuple):
    """By these a repetition is known, and told from another request under the same key."""

    name: str
    """Hexadecimal: of the record that is kept."""
    fingerprint: str
    """Hexadecimal: of what is asked for."""


NONE = Identity("none", "")
"""Of what is never taken for a repetition."""


def of_command(key: str, path: str, data: Any, *, sender: str = "") -> Identity:
    """Return the identity of a command that was sent with an idempotency key.

    Members of JSON objects may come in another order; it is the same command all the same. Each
    sender has keys of their own, so that nobody hears of another's command by its key.

    Raises:
        BadRequest: the key is none.
    """
    if not _VISIBLE.fullmatch(key):
        raise BadRequest(
            f"expected an idempotency key of 1 to {MAX_KEY} visible characters but got {key[:80]!r}"
        )
    return Identity(_digest("command", key, sender), _digest(path, _canonical(data)))


def of_event(event: Event, *, sender: str = "") -> Identity:
    """Return the identity of an event that has an id; without one there is none.

    `sender` is empty for the producers that are trusted. Everybody else has identities of their
    own, so that nobody uses up those of another by guessing its ids.
    """
    if event.id is None:
        return NONE
    name = _digest("event", event.source or "", event.id, sender)
    return Identity(name, _digest(_canonical(event)))


def _canonical(value: Any) -> bytes:
    return msgspec.json.encode(value, order="sorted")


def _digest(*parts: str | bytes) -> str:
    digest = blake2b(digest_size=DIGEST)
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big"))  # so that no two lists of parts are alike
        digest.update(data)
    return digest.hexdigest()
