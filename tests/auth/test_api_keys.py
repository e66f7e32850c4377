"""API keys: made, known by their hashes, expired, revoked."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.auth.apikeys import APIKeys
from gateway.auth.watchedfile import INTERVAL, WatchedFile
from gateway.errors import InvalidToken, TokenFault
from gateway.policy.apikeys import KeyRing, make, text_of, without
from gateway.principals import AuthType, Principal
from tests.identities import ADDRESS

TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=30)


@given(identity=TEXT, roles=st.lists(TEXT, max_size=3), claims=st.dictionaries(TEXT, TEXT))
def test_what_is_written_is_what_is_read(
    identity: str, roles: list[str], claims: dict[str, str]
) -> None:
    key, entry = make(identity, roles=roles, claims=claims)
    assert key not in text_of(entry)
    assert key.split("_")[2] not in text_of(entry)
    found = KeyRing.parse(text_of(entry).encode()).principal(key, now=0.0)
    assert found == Principal(
        id=identity,
        type=AuthType.API_KEY,
        roles=tuple(roles),
        claims=claims,
        token_id=entry.prefix,
    )


def test_only_the_whole_key_is_the_key() -> None:
    key, entry = make("billing")
    other, _ = make("billing")
    ring = KeyRing([entry])
    secret = key.split("_")[2]
    wrong = [
        other,
        key[:-1] + ("0" if key[-1] != "0" else "1"),
        key.replace(secret, "0" * 64),
        f"gwk_{entry.prefix}_{other.split('_')[2]}",
        *(key[:-1], key + "0", "gwk_", "gwk_nope"),
    ]
    for each in wrong:
        with pytest.raises(InvalidToken) as caught:
            ring.principal(each, now=0.0)
        assert caught.value.fault is TokenFault.INACTIVE
    for each in (key.upper(), entry.hash, secret, ""):
        assert ring.principal(each, now=0.0) is None


def test_a_key_that_is_gone_or_has_changed_is_lost() -> None:
    (_, kept), (_, gone), (_, changed) = make("a"), make("b"), make("c")
    earlier = KeyRing([kept, gone, changed])
    later = KeyRing([msgspec.structs.replace(changed, roles=["clerk"]), kept, make("d")[1]])
    assert later.lost_since(earlier) == {gone.prefix, changed.prefix}
    assert KeyRing.parse(b"").lost_since(earlier) == {kept.prefix, gone.prefix, changed.prefix}


def test_a_key_expires() -> None:
    soon = (datetime.now(UTC) + timedelta(seconds=60)).replace(microsecond=0)
    key, entry = make("billing", expires=soon)
    ring = KeyRing.parse(text_of(entry).encode())
    found = ring.principal(key, now=soon.timestamp() - 1)
    assert found is not None
    assert found.expires == soon.timestamp()
    with pytest.raises(InvalidToken) as caught:
        ring.principal(key, now=soon.timestamp())
    assert caught.value.fault is TokenFault.EXPIRED


async def test_a_key_that_is_taken_out_of_the_file_is_refused(tmp_path: Path) -> None:
    now = 0.0
    (old, first), (new, second) = make("a"), make("b")
    path = tmp_path / "keys.toml"
    path.write_text(text_of(first))
    file = WatchedFile(path, KeyRing.parse, clock=lambda: now)
    source = APIKeys(file, lost=lambda prefixes: None, clock=time.time)
    assert await source.principal(old, ADDRESS)
    path.write_text(text_of(first) + "\n" + text_of(second))
    now += INTERVAL
    assert await source.principal(new, ADDRESS)
    path.write_text(without(path.read_text(), {first.prefix}))
    now += INTERVAL
    assert await source.principal(new, ADDRESS)
    with pytest.raises(InvalidToken):
        await source.principal(old, ADDRESS)


def test_what_is_beside_an_entry_stays_when_it_goes() -> None:
    entries = [make(name)[1] for name in "abc"]
    text = "# keys of the shop\n\n" + "\n# the next one\n".join(map(text_of, entries))
    left = without(text, {entries[1].prefix})
    assert left.startswith("# keys of the shop\n\n[[keys]]\n")
    assert [each.id for each in KeyRing.parse(left.encode()).entries] == ["a", "c"]
    assert without(text, {each.prefix for each in entries}) == "# keys of the shop\n\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[[keys]]\nid = 'a'\n", "line 1: .*missing required field `prefix`"),
        ("[[keys]]\nid = 'a'\nprefix = 'short'\nhash = 'x'\n", "line 3: "),
        ("[[keys]]\nid = 'a'\nprefix = '000000000000'\nhash = 'hunter2'\n", "line 4: "),
        ("[[keys]]\nid = 'a'\nprefxi = '0'\n", "line 1: .*unknown field `prefxi`"),
        ("[keys]\n", "Expected `array`"),
        ("keys = 1 2", "expected TOML"),
        ("a = " + "[" * 5000, "expected TOML"),
        (text_of(make("a")[1]) * 2, "expected each prefix once"),
        (text_of(make("a")[1]) + "expires = 2026-01-01\n", "line "),
    ],
)
def test_what_is_wrong_with_a_file(text: str, expected: str) -> None:
    with pytest.raises(ValueError, match=expected) as caught:
        KeyRing.parse(text.encode())
    assert "hunter2" not in str(caught.value)


def test_a_file_that_is_no_text() -> None:
    with pytest.raises(ValueError, match="UTF-8"):
        KeyRing.parse(b"\xff")
