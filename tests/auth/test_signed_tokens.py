"""Signed tokens that are good: all algorithms, what they say, and how long they are remembered."""

import os
import time
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from gateway.auth.memory import Memory, digest
from gateway.auth.signedtokens import FileKeys, FixedKeys, Issuer, SignedTokens
from gateway.auth.sources import sources_of
from gateway.auth.watchedfile import INTERVAL, WatchedFile
from gateway.authconfig import Algorithm, JWTConfig
from gateway.config import AuthConfig
from gateway.errors import InvalidToken, StartError, TokenFault
from gateway.policy import keysets
from gateway.principals import AuthType, Principal
from tests.auth.issuing import (
    ASYMMETRIC,
    AUDIENCE,
    ISSUER,
    SECRET,
    claims,
    jwk,
    jwks,
    pem,
    private_key,
    segment,
    sign,
)
from tests.identities import ADDRESS


class Clock:
    """A time that passes when the test says so."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


def issuer_of(folder: Path, content: bytes, **more: Any) -> JWTConfig:
    (folder / "keys").write_bytes(content)
    return JWTConfig(issuer=ISSUER, audience=[AUDIENCE], keys=folder / "keys", **more)


async def identify(config: JWTConfig, token: str) -> Principal:
    (source,) = sources_of(AuthConfig(jwt=[config]))
    found = await source.principal(token, ADDRESS)
    assert found is not None
    return found


async def fault(config: JWTConfig, token: str) -> TokenFault:
    with pytest.raises(InvalidToken) as caught:
        await identify(config, token)
    return caught.value.fault


@pytest.mark.parametrize("algorithm", ASYMMETRIC)
@pytest.mark.parametrize("form", ["JWKS", "PEM"])
async def test_every_algorithm_works(tmp_path: Path, algorithm: str, form: str) -> None:
    content = pem(algorithm) if form == "PEM" else jwks(jwk(algorithm, "k1"))
    config = issuer_of(tmp_path, content, algorithms=[Algorithm(algorithm)])
    assert (await identify(config, sign(claims(), algorithm))).id == "alice"
    wrong = sign(claims(), algorithm, key=private_key(algorithm, 1))
    assert await fault(config, wrong) is TokenFault.SIGNATURE


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
async def test_every_algorithm_of_secrets_works(tmp_path: Path, algorithm: str) -> None:
    (tmp_path / "secret").write_text(SECRET + "\n")
    places: list[dict[str, Any]] = [{"secret": SECRET}, {"secret_file": tmp_path / "secret"}]
    for where in places:
        config = JWTConfig(
            issuer=ISSUER,
            audience=[AUDIENCE],
            algorithms=[Algorithm(algorithm)],
            **where,
        )
        assert (await identify(config, sign(claims(), algorithm))).id == "alice"
        wrong = sign(claims(), algorithm, key=SECRET[1:].encode())
        assert await fault(config, wrong) is TokenFault.SIGNATURE


async def test_what_a_token_says(tmp_path: Path) -> None:
    config = issuer_of(tmp_path, jwks(jwk("EdDSA", "k1")))
    said = claims(aud=["other", AUDIENCE], sub="bob", roles=["a", 1, "", "b"], more={"x": [1]})
    found = await identify(config, sign(said, "EdDSA"))
    assert found == Principal(
        id="bob",
        type=AuthType.USER,
        issuer=ISSUER,
        roles=("a", "b"),
        claims=said,
        token_id="token-1",
        expires=said["exp"] + 30.0,
    )


@pytest.mark.parametrize(
    ("path", "said", "expected"),
    [
        ("realm_access.roles", {"realm_access": {"roles": ["a"]}}, ("a",)),
        ("https://example.com/roles", {"https://example.com/roles": ["a"]}, ("a",)),
        ("scope", {"scope": "read write"}, ("read", "write")),
        ("realm_access.roles", {"realm_access": ["roles"]}, ()),
        ("roles.0", {}, ()),
        ("roles", {"roles": {"admin": True}}, ()),
        ("nothing", {}, ()),
    ],
)
async def test_where_the_roles_are(
    tmp_path: Path, path: str, said: dict[str, Any], expected: tuple[str, ...]
) -> None:
    config = issuer_of(tmp_path, jwks(jwk("EdDSA", "k1")), roles=path)
    assert (await identify(config, sign(claims(**said), "EdDSA"))).roles == expected


async def test_which_claim_is_the_id(tmp_path: Path) -> None:
    config = issuer_of(tmp_path, jwks(jwk("EdDSA", "k1")), id="user.name")
    assert (await identify(config, sign(claims(user={"name": "bob"}), "EdDSA"))).id == "bob"
    assert await fault(config, sign(claims(user="bob"), "EdDSA")) is TokenFault.CLAIMS


@pytest.mark.parametrize("claim", ["client_id", "azp"])
async def test_a_client_that_acts_for_itself_is_a_service(tmp_path: Path, claim: str) -> None:
    config = issuer_of(tmp_path, jwks(jwk("EdDSA", "k1")))
    for client, expected in (("alice", AuthType.SERVICE_ACCOUNT), ("app", AuthType.USER)):
        token = sign(claims(**{claim: client}), "EdDSA")
        assert (await identify(config, token)).type is expected


async def test_a_token_without_a_name_is_named_after_what_was_signed(tmp_path: Path) -> None:
    config = issuer_of(tmp_path, jwks(jwk("ES256", "k1")), algorithms=[Algorithm.ES256])
    said = claims(jti=None)
    names = {(await identify(config, sign(said, "ES256"))).token_id for _ in range(3)}
    assert len(names) == 1  # each signature is another one
    assert names != {(await identify(config, sign(said | {"sub": "b"}, "ES256"))).token_id}


@pytest.mark.parametrize("jti", ["a\nb", "x" * 256, 7, ""])
async def test_a_strange_name_is_none(tmp_path: Path, jti: object) -> None:
    config = issuer_of(tmp_path, jwks(jwk("EdDSA", "k1")))
    found = await identify(config, sign(claims(jti=jti), "EdDSA"))
    assert len(found.token_id) == 32


@pytest.mark.parametrize(
    ("typ", "types", "good"),
    [
        ("JWT", ("JWT",), True),
        ("jwt", ("JWT",), True),
        ("application/at+jwt", ("at+jwt",), True),
        (None, ("JWT",), True),
        (None, ("at+jwt",), False),
        ("JWT", ("at+jwt",), False),
        ("at+jwt", ("JWT",), False),
    ],
)
async def test_the_type_of_a_token(
    tmp_path: Path, typ: str | None, types: tuple[str, ...], good: bool
) -> None:
    config = issuer_of(tmp_path, jwks(jwk("EdDSA", "k1")), types=types)
    header = b'{"alg":"EdDSA","kid":"k1"}' if typ is None else {"typ": typ}
    token = sign(claims(), "EdDSA", header=header)
    if good:
        assert (await identify(config, token)).id == "alice"
    else:
        assert await fault(config, token) is TokenFault.MALFORMED


async def test_the_only_key_needs_no_name(tmp_path: Path) -> None:
    config = issuer_of(tmp_path, jwks(jwk("EdDSA", "k1"), jwk("RS256", "k2")))
    assert (await identify(config, sign(claims(), "EdDSA", None))).id == "alice"
    config = issuer_of(tmp_path, jwks(jwk("EdDSA", "k1"), jwk("EdDSA", "k2", 1)))
    assert await fault(config, sign(claims(), "EdDSA", None)) is TokenFault.UNKNOWN_KEY


@pytest.mark.parametrize(
    "more",
    [
        {"use": "enc"},
        {"alg": "ES256"},
        {"alg": "HS256"},
        {"alg": ["EdDSA"]},
        {"key_ops": ["sign"]},
        {"key_ops": "verify"},
        {"kty": "oct", "k": "c2VjcmV0"},
        {"kty": ["OKP"]},
        {"crv": "Ed448"},
        {"crv": "X25519"},
        {"x": 7},
        {"x": "AAAA"},
        {"kid": 7},
    ],
)
def test_a_key_for_something_else_is_of_no_use(more: dict[str, Any]) -> None:
    algorithms = [Algorithm.EDDSA, Algorithm.ES256]
    assert len(keysets.of_document(jwks(jwk("EdDSA", "k") | more), algorithms)) == 0


@pytest.mark.parametrize("point", sorted(keysets.SMALL_ORDER), ids=bytes.hex)
def test_with_a_key_of_small_order_anybody_could_sign(point: bytes) -> None:
    """Of made-up signatures with S = 0, some hold for every such key: no secret is needed."""
    key = Ed25519PublicKey.from_public_bytes(point)

    def holds(message: int, r: bytes) -> bool:
        try:
            key.verify(r + bytes(32), str(message).encode())
        except InvalidSignature:
            return False
        return True

    assert any(holds(message, r) for message in range(64) for r in keysets.SMALL_ORDER)


def test_a_weak_key_is_of_no_use() -> None:
    for point in keysets.SMALL_ORDER:
        for sign_bit in (0, 0x80):
            raw = point[:31] + bytes([point[31] | sign_bit])
            weak = jwk("EdDSA", "k") | {"x": segment(raw)}
            assert len(keysets.of_document(jwks(weak), [Algorithm.EDDSA])) == 0
    short = jwk("RS256", "k") | {"n": jwk("RS256", "k")["n"][:171]}
    assert len(keysets.of_document(jwks(short), [Algorithm.RS256])) == 0


async def test_a_private_part_that_an_issuer_published_is_left_alone() -> None:
    leaked = jwk("EdDSA", "k") | {"d": "AAAA"}
    assert len(keysets.of_document(jwks(leaked), [Algorithm.EDDSA])) == 1


async def test_keys_that_are_taken_out_of_the_file_count_no_more(tmp_path: Path) -> None:
    clock = Clock()
    config = issuer_of(tmp_path, jwks(jwk("EdDSA", "k1")))
    assert config.keys is not None

    def read(content: bytes) -> keysets.KeySet:
        return keysets.of_file(content, [Algorithm.EDDSA])

    file = WatchedFile(config.keys, read, clock=clock)
    source = SignedTokens([Issuer(config, FileKeys(file))], clock=clock)
    token = sign(claims(), "EdDSA")
    first = await source.principal(token, ADDRESS)
    assert first is not None
    assert await source.principal(token, ADDRESS) is first  # remembered, not verified anew
    config.keys.write_bytes(jwks(jwk("EdDSA", "k2", 1)))
    clock.now += INTERVAL
    with pytest.raises(InvalidToken) as caught:
        await source.principal(token, ADDRESS)
    assert caught.value.fault is TokenFault.UNKNOWN_KEY


async def test_keys_that_change_while_a_token_is_looked_at_do_not_lend_it_their_word(
    tmp_path: Path,
) -> None:
    config = issuer_of(tmp_path, jwks(jwk("EdDSA", "k1")))
    assert config.keys is not None
    file = WatchedFile(
        config.keys,
        lambda content: keysets.of_file(content, [Algorithm.EDDSA]),
        clock=count(0.0, 0.6 * INTERVAL).__next__,  # the file is looked at every second time
    )
    source = SignedTokens([Issuer(config, FileKeys(file))])
    token = sign(claims(), "EdDSA")
    config.keys.write_bytes(jwks(jwk("EdDSA", "k2", 1)))
    assert await source.principal(token, ADDRESS)
    with pytest.raises(InvalidToken):
        await source.principal(token, ADDRESS)


async def test_a_remembered_token_expires(tmp_path: Path) -> None:
    clock = Clock()
    config = issuer_of(tmp_path, jwks(jwk("EdDSA", "k1")))
    assert config.keys is not None
    keys = keysets.of_file(config.keys.read_bytes(), [Algorithm.EDDSA])
    source = SignedTokens([Issuer(config, FixedKeys(keys))], clock=clock)
    token = sign(claims(exp=int(clock.now) + 60), "EdDSA")
    assert await source.principal(token, ADDRESS)
    clock.now += 60 + 29
    assert await source.principal(token, ADDRESS)
    clock.now += 2
    with pytest.raises(InvalidToken, match="expired"):
        await source.principal(token, ADDRESS)


def test_memory_is_bounded_and_the_least_used_goes_first() -> None:
    clock = Clock()
    memory: Memory[int] = Memory(2, clock=clock)
    keys = [digest(str(number)) for number in range(3)]
    memory.put(keys[0], 0, until=clock.now + 10)
    memory.put(keys[1], 1, until=clock.now + 10)
    assert memory.get(keys[0]) == 0
    memory.put(keys[2], 2, until=clock.now + 1)
    assert [memory.get(key) for key in keys] == [0, None, 2]
    clock.now += 1
    assert memory.get(keys[2]) is None
    assert len(memory) == 1


def test_a_broken_file_leaves_what_was_good(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    path = tmp_path / "number"
    path.write_text("1")
    file = WatchedFile(path, int, clock=clock)
    assert file.current() == 1
    path.write_text("two")
    assert file.current() == 1  # not looked at yet
    for _ in range(3):
        clock.now += INTERVAL
        assert file.current() == 1
    assert caplog.text.count("what it said before goes on counting") == 1
    path.unlink()
    clock.now += INTERVAL
    assert file.current() == 1
    assert "No such file" in caplog.text
    (tmp_path / "new").write_text("3")
    os.replace(tmp_path / "new", path)  # as editors do
    clock.now += INTERVAL
    assert file.current() == 3


def test_a_file_that_is_broken_from_the_start_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "number").write_text("x")
    with pytest.raises(StartError, match="number: invalid literal"):
        WatchedFile(tmp_path / "number", int)
    with pytest.raises(StartError, match="No such file"):
        WatchedFile(tmp_path / "nothing", int)
