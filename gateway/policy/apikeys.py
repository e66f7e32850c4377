"""API keys: how they look, and the file that knows them by their hashes. No I/O.

A key is `gwk_<prefix>_<secret>`. The prefix is public: it finds the entry, names the key in lists
and logs, and lets scanners know a key that was leaked. The secret has 256 random bits, so there is
nothing to guess and a fast hash is the right one: a slow one protects what people think up, and
would let strangers burn our processor with made-up keys.
"""

import hashlib
import hmac
import re
import secrets
import tomllib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from gateway.errors import InvalidToken, TokenFault
from gateway.principals import AuthType, Principal
from gateway.tomllines import lines_of, nearest_line

BEGINNING = "gwk_"
"""Of every key: by that a wrong one is told from somebody else's token."""
_FORM = re.compile(BEGINNING + r"([0-9a-f]{12})_[0-9a-f]{64}")
_SCHEME = "sha256:"
_NO_HASH = _SCHEME + "0" * 64

Moment = Annotated[datetime, Meta(tz=True)]


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[keys]]`: one key. Several may have the same id, so that one can take over from another."""

    id: Annotated[str, Meta(min_length=1, max_length=255)]
    prefix: Annotated[str, Meta(pattern=r"^[0-9a-f]{12}\Z")]
    hash: Annotated[str, Meta(pattern=rf"^{_SCHEME}[0-9a-f]{{64}}\Z")]
    roles: Sequence[str] = ()
    claims: Mapping[str, Any] = msgspec.field(default_factory=dict)
    created: Moment | None = None
    expires: Moment | None = None

    def principal(self) -> Principal:
        """Return whose key it is."""
        return Principal(
            id=self.id,
            type=AuthType.API_KEY,
            roles=tuple(self.roles),
            claims=self.claims,
            token_id=self.prefix,
            expires=self.expires.timestamp() if self.expires else None,
        )


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    keys: Sequence[Entry] = ()


class KeyRing:
    """The keys of a file."""

    def __init__(self, entries: Sequence[Entry] = ()) -> None:
        self.entries = tuple(entries)
        self._by_prefix = {entry.prefix: entry for entry in entries}

    def lost_since(self, earlier: "KeyRing") -> frozenset[str]:
        """Return the prefixes of keys that are gone since, or speak of somebody else."""
        return frozenset(
            prefix
            for prefix, entry in earlier._by_prefix.items()
            if self._by_prefix.get(prefix) != entry
        )

    @classmethod
    def parse(cls, content: bytes) -> "KeyRing":
        """Read the file. Raises `ValueError`, which tells the line but no hash."""
        text, document = _toml(content)
        try:
            found = cls(msgspec.convert(document, _File).keys)
        except msgspec.ValidationError as error:
            raise ValueError(_located(str(error), text)) from None
        if len(found._by_prefix) < len(found.entries):
            raise ValueError("expected each prefix once")
        return found

    def principal(self, token: str, *, now: float) -> Principal | None:
        """Return whose key it is; None if it is no API key.

        How long it takes tells nothing of the hashes: an unknown prefix is compared as well.

        Raises:
            InvalidToken: nobody's, or expired.
        """
        if not token.startswith(BEGINNING):
            return None
        form = _FORM.fullmatch(token)
        entry = self._by_prefix.get(form[1]) if form else None
        right = hmac.compare_digest(hash_of(token), entry.hash if entry else _NO_HASH)
        if entry is None or not right:
            raise InvalidToken("there is no such API key, or not any more", TokenFault.INACTIVE)
        principal = entry.principal()
        if principal.expires is not None and principal.expires <= now:
            raise InvalidToken("the API key has expired", TokenFault.EXPIRED)
        return principal


def hash_of(key: str) -> str:
    """Return what the file keeps of a key."""
    return _SCHEME + hashlib.sha256(key.encode()).hexdigest()


def make(
    identity: str,
    *,
    roles: Sequence[str] = (),
    claims: Mapping[str, str] | None = None,
    expires: datetime | None = None,
) -> tuple[str, Entry]:
    """Return a new key, and its entry. The key itself is nowhere else."""
    prefix = secrets.token_hex(6)
    key = f"{BEGINNING}{prefix}_{secrets.token_hex(32)}"
    now = datetime.now(UTC).replace(microsecond=0)
    return key, Entry(
        id=identity,
        prefix=prefix,
        hash=hash_of(key),
        roles=tuple(roles),
        claims=claims or {},
        created=now,
        expires=expires,
    )


def text_of(entry: Entry) -> str:
    """Return an entry as it is written into the file."""
    lines = [
        "[[keys]]",
        f"id = {_quoted(entry.id)}",
        f'prefix = "{entry.prefix}"',
        f'hash = "{entry.hash}"',
    ]
    if entry.roles:
        lines.append(f"roles = [{', '.join(map(_quoted, entry.roles))}]")
    if entry.claims:
        pairs = (f"{_quoted(name)} = {_quoted(value)}" for name, value in entry.claims.items())
        lines.append(f"claims = {{ {', '.join(pairs)} }}")
    for name, moment in (("created", entry.created), ("expires", entry.expires)):
        if moment is not None:
            lines.append(f"{name} = {moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}")
    return "\n".join(lines) + "\n"


def including(text: str, entry: Entry) -> str:
    """Return the text of a file with one more entry. Raises `ValueError` if the file is broken."""
    KeyRing.parse(text.encode())
    return f"{text.rstrip()}\n\n{text_of(entry)}" if text.strip() else text_of(entry)


def without(text: str, prefixes: set[str]) -> str:
    """Return the text of a file without some of its entries; the rest stays as it was written."""
    entries = KeyRing.parse(text.encode()).entries
    lines, found = text.splitlines(keepends=True), lines_of(text)
    begins = [found["keys", index] - 1 for index in range(len(entries))] + [len(lines)]
    kept = lines[: begins[0]]
    for index, entry in enumerate(entries):
        if entry.prefix not in prefixes:
            kept += lines[begins[index] : begins[index + 1]]
    return "".join(kept)


def _toml(content: bytes) -> tuple[str, dict[str, Any]]:
    try:
        text = content.decode()
        return text, tomllib.loads(text)
    except UnicodeDecodeError:
        raise ValueError("expected UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"expected TOML: {error}") from None
    except RecursionError:
        raise ValueError("expected TOML that is not nested that deeply") from None


def _located(message: str, text: str) -> str:
    """Add the line to what msgspec says of a value at `$.keys[3].hash`."""
    found = re.search(r"`\$\.keys\[(\d+)\](?:\.(\w+))?", message)
    if not found:
        return message
    path = ("keys", int(found[1]), *([found[2]] if found[2] else []))
    return f"line {nearest_line(lines_of(text), path)}: {message}"


def _quoted(text: str) -> str:
    """Return a text as TOML writes it: as JSON does, and DEL is escaped too."""
    return msgspec.json.encode(text).decode().replace("\x7f", "\\u007f")
