"""The known attacks on tokens, each through the front door: refused with 401, and no trouble."""

import json
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from gateway.config import BrokerConfig, CommandConfig, Config
from gateway.errors import TokenFault
from tests.api.stand import Stand, problem, standing
from tests.auth.issuing import (
    HMAC_ISSUER,
    ISSUER,
    auth_config,
    claims,
    jwk,
    pem,
    private_key,
    segment,
    sign,
)
from tests.servers import RunningServer

ORDER_P256 = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@pytest.fixture(scope="module")
async def door(
    valkey: RunningServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stand]:
    config = Config(
        broker=BrokerConfig(url=valkey.url, namespace=f"auth-{secrets.token_hex(4)}"),
        commands=[
            CommandConfig(path="/do", type="do", stream="s", allow="principal.id == 'alice'")
        ],
        auth=auth_config(tmp_path_factory.mktemp("auth")),
    )
    async with standing(config) as stand:
        yield stand


def header(**more: Any) -> bytes:
    return json.dumps({"alg": "RS256", "kid": "k1", **more}).encode()


def tampered(token: str, signature: str) -> str:
    return f"{token.rpartition('.')[0]}.{signature}"


def unsigned(alg: object, **more: Any) -> str:
    return f"{segment(header(alg=alg, **more))}.{segment(json.dumps(claims()).encode())}."


def repeated(name: str, value: str) -> bytes:
    """Claims in which a member comes twice, the second one being what the attacker wants."""
    return json.dumps(claims()).replace("{", f'{{"{name}": {value}, ', 1).encode()


def timed(**times: str) -> bytes:
    """Claims with numbers written as they are."""
    text = json.dumps(claims(**dict.fromkeys(times, "@")))
    for written in times.values():
        text = text.replace('"@"', written, 1)
    return text.encode()


def own_key(**more: Any) -> str:
    """Signed with the attacker's own key, which the header offers."""
    return sign(claims(), key=private_key("RS256", 9), header=more)


def hmac_with_public_key(material: bytes, kid: str | None = "k1") -> str:
    return sign(claims(), "HS256", kid, key=material)


def now(offset: float) -> int:
    return int(time.time() + offset)


ATTACKS: dict[TokenFault, dict[str, Callable[[], str]]] = {
    TokenFault.MALFORMED: {
        "kid a number": lambda: sign(claims(), header={"kid": 1}),
        "kid a list": lambda: sign(claims(), header={"kid": ["k1"]}),
        "exp NaN": lambda: sign(timed(exp="NaN")),
        "exp Infinity": lambda: sign(timed(exp="Infinity")),
        "exp 1e400": lambda: sign(timed(exp="1e400")),
        "exp of 5000 digits": lambda: sign(timed(exp="9" * 5000)),
        "exp twice": lambda: sign(repeated("exp", "1")),
        "sub twice": lambda: sign(repeated("sub", '"mallory"')),
        "sub twice, once escaped": lambda: sign(repeated("s\\u0075b", '"mallory"')),
        "alg twice": lambda: sign(claims(), header=b'{"alg": "none", "alg": "RS256", "kid": "k1"}'),
        "crit": lambda: sign(claims(), header={"crit": ["exp"]}),
        "crit with a parameter that is there": lambda: sign(
            claims(), header={"crit": ["x"], "x": 1}
        ),
        "crit empty": lambda: sign(claims(), header={"crit": []}),
        "crit null": lambda: sign(claims(), header={"crit": None}),
        "b64 false": lambda: sign(claims(), header={"b64": False}),
        "b64 false and critical": lambda: sign(claims(), header={"b64": False, "crit": ["b64"]}),
        "zip": lambda: sign(claims(), header={"zip": "DEF"}),
        "encrypted in three segments": lambda: sign(claims(), header={"enc": "A256GCM"}),
        "a token within a token": lambda: sign(sign(claims()).encode(), header={"cty": "JWT"}),
        "cty": lambda: sign(claims(), header={"cty": "JWT"}),
        "typ of another kind": lambda: sign(claims(), header={"typ": "logout+jwt"}),
        "typ a list": lambda: sign(claims(), header={"typ": ["JWT"]}),
        "claims a list": lambda: sign(b"[1]"),
        "claims null": lambda: sign(b"null"),
        "claims no JSON": lambda: sign(b"{"),
        "claims not UTF-8": lambda: sign(b'{"sub":"\xff"}'),
        "claims with a lone surrogate": lambda: sign(b'{"sub":"\\ud800"}'),
        "claims nested a thousand times": lambda: sign(b'{"a":' * 1000 + b"1" + b"}" * 1000),
        "oversized": lambda: sign(claims(padding="x" * 8192)),
        "whitespace within": lambda: sign(claims()).replace(".", " .", 1),
        "tab within": lambda: sign(claims()).replace(".", "\t.", 1),
        "two tokens": lambda: f"{sign(claims())} {sign(claims())}",
        "two tokens with a comma": lambda: f"{sign(claims())}, Bearer {sign(claims())}",
        "percent-encoded": lambda: sign(claims()).replace(".", "%2E"),
    },
    TokenFault.UNKNOWN_ISSUER: {
        "wrong issuer": lambda: sign(claims(iss="https://evil.example.com")),
        "issuer with a slash more": lambda: sign(claims(iss=ISSUER + "/")),
        "issuer a list": lambda: sign(claims(iss=[ISSUER])),
        "issuer missing": lambda: sign(claims(iss=None)),
        "encrypted (five segments)": lambda: ".".join(
            [segment(b'{"alg":"dir","enc":"A256GCM"}'), "", *["AAAA"] * 3]
        ),
        "header nested a thousand times": lambda: sign(claims(), header=b"[" * 1000 + b"]" * 1000),
        "header a list": lambda: sign(claims(), header=b"[]"),
        "header no JSON": lambda: sign(claims(), header=b"RS256"),
        "signature and its dot missing": lambda: sign(claims()).rpartition(".")[0],
        "signature with padding": lambda: sign(claims()) + "==",
        "a fourth segment": lambda: sign(claims()) + ".AAAA",
        "standard base64": lambda: sign(claims()).replace(".", "+.", 1),
        "dots": lambda: "..",
        "an API key where there are none": lambda: "gwk_" + "0" * 12 + "_" + "0" * 64,
    },
    TokenFault.ALGORITHM: {
        "alg none": lambda: unsigned("none"),
        "alg None": lambda: unsigned("None"),
        "alg NONE": lambda: unsigned("NONE"),
        "alg nOnE": lambda: unsigned("nOnE"),
        "alg empty": lambda: unsigned(""),
        "alg null": lambda: unsigned(None),
        "alg a list": lambda: unsigned(["RS256", "none"]),
        "alg with a NUL": lambda: unsigned("none\0"),
        "alg missing": lambda: f"{segment(b'{}')}.{segment(json.dumps(claims()).encode())}.",
        "alg none with a signature": lambda: tampered(
            unsigned("none"), sign(claims()).split(".")[2]
        ),
        "public key in PEM as HMAC secret": lambda: hmac_with_public_key(pem("RS256")),
        "public key in PEM without its last line break as HMAC secret": lambda: (
            hmac_with_public_key(pem("RS256").strip())
        ),
        "public key as JWK as HMAC secret": lambda: hmac_with_public_key(
            json.dumps(jwk("RS256", "k1")).encode()
        ),
        "public EC key as HMAC secret": lambda: hmac_with_public_key(pem("ES256"), "e1"),
        "HMAC secret's issuer with an RSA token": lambda: sign(claims(iss=HMAC_ISSUER)),
        "RS512 with a key that is pinned to RS256": lambda: sign(claims(), "RS512"),
        "an algorithm that is not configured": lambda: sign(claims(), "ES384", "e1"),
        "kid path traversal": lambda: sign(claims(), "HS256", "../../../../dev/null", key=b"\0"),
        "another issuer's key": lambda: sign(claims(iss=ISSUER), "HS256", None),
    },
    TokenFault.UNKNOWN_KEY: {
        "PS256 with a key that is pinned to RS256": lambda: sign(claims(), "PS256", "k1"),
        "ES256 with the kid of the RSA key": lambda: sign(claims(), "ES256", "k1"),
        "RS256 with the kid of the EC key": lambda: sign(claims(), "RS256", "e1"),
        "a key for encryption": lambda: sign(claims(), kid="enc1", key=private_key("RS256", 1)),
        "kid path traversal to RSA": lambda: sign(claims(), kid="../../../../../../etc/passwd"),
        "kid SQL": lambda: sign(claims(), kid="x' UNION SELECT 'secret' -- "),
        "kid newline": lambda: sign(claims(), kid="k1\r\nX-Admin: yes"),
        "kid NUL": lambda: sign(claims(), kid="k1\0"),
        "kid command": lambda: sign(claims(), kid="$(id)|id"),
        "kid unknown": lambda: sign(claims(), kid="k2"),
        "jku with an unknown kid": lambda: own_key(jku="http://127.0.0.1:1/keys.json", kid="mine"),
    },
    TokenFault.SIGNATURE: {
        "kid missing where there are several keys": lambda: sign(
            claims(), "RS256", None, key=private_key("RS256", 9)
        ),
        "jku": lambda: own_key(jku="http://127.0.0.1:1/keys.json", kid="k1"),
        "x5u": lambda: own_key(x5u="http://127.0.0.1:1/cert.pem"),
        "jwk": lambda: own_key(jwk=jwk("RS256", "k1", 9)),
        "x5c": lambda: own_key(x5c=["MIIB"]),
        "another key": lambda: own_key(),
        "signature missing": lambda: tampered(sign(claims()), ""),
        "signature of another token": lambda: tampered(
            sign(claims(sub="admin")), sign(claims()).split(".")[2]
        ),
        "signature one byte short": lambda: sign(claims())[:-2],
        "signature with bits that mean nothing": lambda: tampered(
            sign(claims()), sign(claims()).split(".")[2][:-1] + "_"
        ),
        "ES256 signature of zeros (CVE-2022-21449)": lambda: tampered(
            sign(claims(), "ES256", "e1"), segment(bytes(64))
        ),
        "ES256 r and s are the order": lambda: tampered(
            sign(claims(), "ES256", "e1"), segment(ORDER_P256.to_bytes(32, "big") * 2)
        ),
        "ES256 in DER": lambda: tampered(
            sign(claims(), "ES256", "e1"), segment(bytes.fromhex("3006020101020101"))
        ),
        "ES256 with a P-384 key": lambda: sign(claims(), "ES384", "e1", header={"alg": "ES256"}),
        "EdDSA signature of zeros": lambda: tampered(
            sign(claims(), "EdDSA", "ed1"), segment(bytes(64))
        ),
        "EdDSA with R of small order and S = 0": lambda: tampered(
            sign(claims(), "EdDSA", "ed1"), segment(b"\x01" + bytes(63))
        ),
        "EdDSA with S not reduced": lambda: tampered(
            sign(claims(), "EdDSA", "ed1"), segment(bytes(32) + b"\xff" * 32)
        ),
    },
    TokenFault.EXPIRED: {
        "expired": lambda: sign(claims(exp=now(-31))),
        "expired long ago": lambda: sign(claims(exp=1)),
    },
    TokenFault.NOT_YET_VALID: {
        "not yet valid": lambda: sign(claims(nbf=now(60))),
        "issued in the future": lambda: sign(claims(iat=now(60))),
    },
    TokenFault.AUDIENCE: {
        "wrong audience": lambda: sign(claims(aud="another")),
        "wrong audiences": lambda: sign(claims(aud=["another", "gatewa", "gateway ", "GATEWAY"])),
        "audience an object": lambda: sign(claims(aud={"gateway": True})),
        "audience missing": lambda: sign(claims(aud=None)),
        "audience with lists in it": lambda: sign(claims(aud=[["gateway"]])),
    },
    TokenFault.CLAIMS: {
        "no exp": lambda: sign(claims(exp=None)),
        "exp null": lambda: sign(timed(exp="null")),
        "exp true": lambda: sign(timed(exp="true")),
        "exp a text": lambda: sign(claims(exp=str(now(600)))),
        "exp 1e308": lambda: sign(timed(exp="1e308")),
        "exp of 400 digits": lambda: sign(timed(exp="9" * 400)),
        "exp negative": lambda: sign(claims(exp=-1)),
        "exp a list": lambda: sign(claims(exp=[now(600)])),
        "nbf a text": lambda: sign(claims(nbf="0")),
        "iat true": lambda: sign(claims(iat=True)),
        "nbf null": lambda: sign(timed(nbf="null")),
        "sub missing": lambda: sign(claims(sub=None)),
        "sub empty": lambda: sign(claims(sub="")),
        "sub a number": lambda: sign(claims(sub=7)),
        "sub with a line break": lambda: sign(claims(sub="alice\nadmin")),
        "sub with a NUL": lambda: sign(claims(sub="alice\0")),
        "sub of 256 characters": lambda: sign(claims(sub="a" * 256)),
    },
}
"""By what is found to be wrong: an attack must not be refused by chance."""


@pytest.mark.parametrize(
    ("fault", "name"), [(fault, name) for fault in ATTACKS for name in ATTACKS[fault]]
)
async def test_an_attack_is_refused(
    door: Stand, fault: TokenFault, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    token = ATTACKS[fault][name]()
    with caplog.at_level(logging.DEBUG):
        answer = await door.post("/do", b"{}", authorization=f"Bearer {token}")
    problem(answer, 401, "invalid-token")
    assert answer.json()["fault"] == fault
    assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'
    for part in token.split("."):
        assert len(part) < 8 or part not in answer.text + caplog.text
    assert [each for each in caplog.records if each.exc_info or each.levelno >= 30] == []


@pytest.mark.parametrize(("algorithm", "kid"), [("RS256", "k1"), ("ES256", "e1"), ("EdDSA", "ed1")])
async def test_a_good_token_is_accepted(door: Stand, algorithm: str, kid: str) -> None:
    token = sign(claims(), algorithm, kid)
    answer = await door.post("/do", b"{}", authorization=f"Bearer {token}")
    assert answer.status_code == 202, answer.text


async def test_a_good_hmac_token_is_accepted(door: Stand) -> None:
    token = sign(claims(iss=HMAC_ISSUER), "HS256", None)
    answer = await door.post("/do", b"{}", authorization=f"bearer  {token}")
    assert answer.status_code == 202, answer.text


async def test_no_token_is_no_error_of_a_token(door: Stand) -> None:
    answer = await door.post("/do", b"{}")
    problem(answer, 401, "unauthorized")
    assert answer.headers["www-authenticate"] == "Bearer"


async def test_an_empty_token_is_refused(door: Stand) -> None:
    request = b"POST /do HTTP/1.1\r\nhost: a\r\nauthorization: Bearer \r\ncontent-length: 0\r\n\r\n"
    status, headers, body = await door.raw(request)
    assert (status, json.loads(body)["code"]) == (401, "invalid-token")
    assert headers["www-authenticate"] == 'Bearer error="invalid_token"'


async def test_another_scheme_is_no_token(door: Stand) -> None:
    answer = await door.post("/do", b"{}", authorization="Basic YTpi")
    problem(answer, 401, "unauthorized")


async def test_refusals_are_counted_by_what_was_wrong(door: Stand) -> None:
    def counted(fault: str) -> float:
        for line in door.gateway.metrics.text().decode().splitlines():
            if line.startswith(f'gateway_tokens_refused_total{{fault="{fault}"}}'):
                return float(line.split()[1])
        return 0.0

    before = counted("expired")
    await door.post("/do", b"{}", authorization=f"Bearer {sign(claims(exp=1))}")
    assert counted("expired") == before + 1
