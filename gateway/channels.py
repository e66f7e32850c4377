"""Channels, what they are called and where a subscriber stands in them.

A channel's name is what a browser subscribes to (`orders`, `orders:c-19`). A pattern
(`orders:{customer}`) covers a family of them and binds its parameters. A position covers *all*
channels of one connection: the epoch of the log and the id of the newest entry that was seen.
"""

import re
from dataclasses import dataclass
from typing import NamedTuple

from gateway.errors import BadRequest

MAX_NAME = 255
"""Bytes. A name is part of keys and of frames, and it comes from strangers."""

_NAME = re.compile(r"[A-Za-z0-9_.@/=+~:-]+")
_PARAMETER = re.compile(r"\{([a-z_][a-z0-9_]*)\}")
_EPOCH = re.compile(r"[a-z0-9]{1,32}")

EARLIEST = "earliest"
"""In place of a position: everything that is retained, from the oldest on."""


def check_name(name: str) -> str:
    """Return `name` if it may be a channel's name.

    No white space, quotes or control characters: names go unescaped into keys and SSE streams,
    where a line break would inject fields (CWE-93).

    Raises:
        BadRequest: with what was expected and what came.
    """
    if len(name) > MAX_NAME or not _NAME.fullmatch(name):
        raise BadRequest(
            f"expected a channel name of 1 to {MAX_NAME} letters, digits and _.@/=+~:- "
            f"but got {name[:80]!r}"
        )
    return name


class Pattern:
    """A channel pattern: literal text and `{parameters}`, each of which matches up to a colon."""

    def __init__(self, text: str) -> None:
        """Compile `text`. Raises `ValueError` if it is no pattern."""
        literals = _PARAMETER.split(text)
        self.text = text
        self.parameters = literals[1::2]
        if len(set(self.parameters)) != len(self.parameters):
            raise ValueError(f"expected each parameter once in the pattern {text!r}")
        if not all(_NAME.fullmatch(part) for part in literals[::2] if part):
            raise ValueError(
                "expected letters, digits, _.@/=+~:- and {parameters} in lower case "
                f"but got the pattern {text!r}"
            )
        self._regex = re.compile(
            "".join(
                f"(?P<{part}>[^:]+)" if index % 2 else re.escape(part)
                for index, part in enumerate(literals)
            )
        )

    def match(self, name: str) -> dict[str, str] | None:
        """Return the parameters of `name`, or None if the pattern does not cover it."""
        found = self._regex.fullmatch(name)
        return found.groupdict() if found else None


class EntryId(NamedTuple):
    """The id of an entry in the log, as Redis orders them: milliseconds, then a sequence number."""

    ms: int
    seq: int

    @classmethod
    def parse(cls, text: str | bytes) -> "EntryId":
        """Read `<ms>-<seq>`. Raises `ValueError`."""
        if isinstance(text, bytes):
            text = text.decode("ascii")
        ms, _, seq = text.partition("-")
        if not (ms.isascii() and ms.isdigit() and seq.isascii() and seq.isdigit()):
            raise ValueError(f"expected <ms>-<seq> but got {text!r}")
        if len(ms) > 19 or len(seq) > 19:  # 19 digits always fit in the 64 bits that Redis has
            raise ValueError("expected an entry id of two 64-bit numbers")
        return cls(int(ms), int(seq))

    def __str__(self) -> str:
        return f"{self.ms}-{self.seq}"


@dataclass(frozen=True, slots=True)
class Position:
    """Where a subscriber stands: one token, `<epoch>-<ms>-<seq>`, for all of its channels.

    Opaque to clients. Goes out as the SSE `id:` and comes back as `Last-Event-ID`.
    """

    epoch: str
    id: EntryId

    @classmethod
    def parse(cls, token: str) -> "Position":
        """Read a token that a client sent. Raises `BadRequest`."""
        epoch, _, entry = token.partition("-")
        if _EPOCH.fullmatch(epoch):
            try:
                return cls(epoch, EntryId.parse(entry))
            except ValueError:
                pass
        raise BadRequest(f"expected a position that this gateway gave out but got {token[:80]!r}")

    def __str__(self) -> str:
        return f"{self.epoch}-{self.id}"
