"""Issuers of tokens for the tests: keys of all kinds, and tokens right and wrong."""

import base64
import json
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from gateway.authconfig import JWTConfig
from gateway.config import AuthConfig

ISSUER = "https://id.example.com/realms/shop"
AUDIENCE = "gateway"
HMAC_ISSUER = "https://hmac.example.com"
SECRET = "a secret of more than thirty-two bytes, for HS256 and a few others too"

CURVES = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}
ASYMMETRIC = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", *CURVES, "EdDSA"]


def private_key(algorithm: str, number: int = 0) -> Any:
    """One of the keys for an algorithm; the same whenever it is asked for."""
    kind = algorithm if algorithm in CURVES else "Ed" if algorithm == "EdDSA" else "RSA"
    return _private_key(kind, number)


@cache
def _private_key(algorithm: str, number: int) -> Any:
    if algorithm in CURVES:
        return ec.generate_private_key(CURVES[algorithm])
    if algorithm == "Ed":
        return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(65537, 2048)


def jwk(algorithm: str, kid: str | None, number: int = 0, **more: Any) -> dict[str, Any]:
    """The public part of a key, as a JWKS has it."""
    public = private_key(algorithm, number).public_key()
    if algorithm in CURVES:
        found = ECAlgorithm.to_jwk(public, as_dict=True)
    elif algorithm == "EdDSA":
        found = OKPAlgorithm.to_jwk(public, as_dict=True)
    else:
        found = RSAAlgorithm.to_jwk(public, as_dict=True)
        del found["key_ops"]
    return found | ({"kid": kid} if kid else {}) | more


def jwks(*keys: dict[str, Any]) -> bytes:
    return json.dumps({"keys": keys}).encode()


def pem(algorithm: str, number: int = 0) -> bytes:
    public = private_key(algorithm, number).public_key()
    found: bytes = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return found


def claims(**more: Any) -> dict[str, Any]:
    """What a good token says. A claim that is None is left out."""
    now = int(time.time())
    usual = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "alice",
        "jti": "token-1",
        "iat": now,
        "exp": now + 600,
        "roles": ["clerk"],
    }
    return {name: value for name, value in (usual | more).items() if value is not None}


def sign(
    said: Mapping[str, Any] | bytes,
    algorithm: str = "RS256",
    kid: str | None = "k1",
    *,
    key: Any = None,
    header: Mapping[str, Any] | bytes | None = None,
) -> str:
    """A token with whatever header and claims; bytes are taken as they are."""
    head = {"alg": algorithm, "typ": "JWT"} | ({"kid": kid} if kid is not None else {})
    if isinstance(header, bytes):
        head_bytes = header
    else:
        head_bytes = json.dumps(head | dict(header or {})).encode()
    body = said if isinstance(said, bytes) else json.dumps(said).encode()
    signing_input = f"{segment(head_bytes)}.{segment(body)}"
    if key is None:
        key = SECRET.encode() if algorithm.startswith("HS") else private_key(algorithm)
    implementation = jwt.PyJWS().get_algorithm_by_name(algorithm)
    return f"{signing_input}.{segment(implementation.sign(signing_input.encode(), key))}"


def segment(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def auth_config(folder: Path) -> AuthConfig:
    """One issuer with published keys of three kinds, and one with a secret."""
    keys = [
        jwk("RS256", "k1", alg="RS256", use="sig"),
        jwk("ES256", "e1"),
        jwk("EdDSA", "ed1"),
        jwk("RS256", "enc1", 1, use="enc"),
    ]
    (folder / "keys.json").write_bytes(jwks(*keys))
    return AuthConfig(
        jwt=[
            JWTConfig(issuer=ISSUER, audience=[AUDIENCE], keys=folder / "keys.json"),
            JWTConfig(issuer=HMAC_ISSUER, audience=[AUDIENCE], secret=SECRET),
        ]
    )
