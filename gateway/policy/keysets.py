"""Key sets: the keys of an issuer, each bound to what it may verify. No I/O.

A key knows its algorithms before a token names one: those of its kind, of its own `alg`, and of the
configuration. So a public key never serves as an HMAC secret, and a secret never meets a token that
was signed with anything else (RFC 8725, section 3.1).
"""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import jwt
import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt import algorithms as implementations

from gateway.authconfig import Algorithm
from gateway.errors import BadRequest
from gateway.policy.documents import decode

A = Algorithm
FITTING: Mapping[tuple[object, object], Collection[Algorithm]] = {
    ("RSA", None): (A.RS256, A.RS384, A.RS512, A.PS256, A.PS384, A.PS512),
    ("EC", "P-256"): (A.ES256,),
    ("EC", "P-384"): (A.ES384,),
    ("EC", "P-521"): (A.ES512,),
    ("OKP", "Ed25519"): (A.EDDSA,),
    ("oct", None): (A.HS256, A.HS384, A.HS512),
}
"""By `kty` and `crv`: what a key can be used with, RFC 7518 section 3.1 and RFC 8037."""
PUBLIC = ("kty", "crv", "n", "e", "x", "y")
"""Members of a JWK that are of use here. What is private in it is left alone."""
RSA_BITS = range(2048, 8193)
"""Shorter moduli are weak, longer ones cost a processor too much for each token."""
SMALL_ORDER = frozenset(
    bytes.fromhex(point)
    for point in (
        "00" * 32,
        "01" + "00" * 31,
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ec" + "ff" * 30 + "7f",
        "ed" + "ff" * 30 + "7f",
        "ee" + "ff" * 30 + "7f",
    )
)
"""Points of small order of edwards25519, without the sign of x: with one of these as a key, anybody
can sign. See "Taming the many EdDSAs", https://eprint.iacr.org/2020/1244."""

_JWS = jwt.PyJWS(options={"verify_signature": True, "enforce_minimum_key_length": True})


class Key:
    """A key, and the algorithms that it is for."""

    def __init__(self, kid: str | None, uses: Mapping[Algorithm, jwt.PyJWK]) -> None:
        self.kid = kid
        self._uses = uses

    def fits(self, algorithm: Algorithm) -> bool:
        return algorithm in self._uses

    def verified(self, token: str, algorithm: Algorithm) -> bool:
        """Return whether the token was signed with this key. It must fit the algorithm."""
        try:
            _JWS.decode_complete(token, self._uses[algorithm], algorithms=[algorithm])
        except jwt.PyJWTError:
            return False
        return True


class KeySet:
    """The keys of one issuer."""

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        self._keys = tuple(keys)

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, key: Key) -> bool:
        """Return whether it is this very key, read together with the others."""
        return key in self._keys

    def find(self, kid: str | None, algorithm: Algorithm) -> Key | None:
        """Return the key that a token names, if it fits the algorithm.

        A key without a name is taken if no key has the token's, and one is as good as another if
        there is no other: who does not say which key it is has no more than one guess.
        """
        fitting = [key for key in self._keys if key.fits(algorithm)]
        if kid is not None:
            named = [key for key in fitting if key.kid == kid]
            fitting = named or [key for key in fitting if key.kid is None]
        return fitting[0] if len(fitting) == 1 else None


def of_secret(secret: bytes, algorithms: Collection[Algorithm]) -> KeySet:
    """Return the set of one HMAC secret. Raises `ValueError` if it is no good one."""
    size = max(algorithm.secret_size for algorithm in algorithms)
    if len(secret) < size:
        raise ValueError(f"expected a secret of {size} bytes or more but got {len(secret)}")
    jwk = {"kty": "oct", "k": jwt.utils.base64url_encode(secret).decode()}
    try:
        implementations.HMACAlgorithm(implementations.HMACAlgorithm.SHA256).prepare_key(secret)
        return KeySet([Key(None, {each: jwt.PyJWK(jwk, each) for each in algorithms})])
    except jwt.PyJWTError:
        raise ValueError("expected a secret but got something that holds a public key") from None


def of_document(content: bytes, algorithms: Collection[Algorithm]) -> KeySet:
    """Return the keys of a JWKS (RFC 7517) that are of use with one of the algorithms.

    Others are passed over: a set may hold keys for encryption, and kinds that are not known yet. It
    may have none: that is how an issuer takes them all back. Raises `ValueError` if it is no JWKS.
    """
    return KeySet(key for jwk in _jwks(content) if (key := _key(jwk, algorithms)))


def of_file(content: bytes, algorithms: Collection[Algorithm]) -> KeySet:
    """Return the public keys of a file: a JWKS, or keys and certificates in PEM.

    Raises:
        ValueError: it is neither, a key in it is private, or none is of use.
    """
    if b"PRIVATE KEY-----" in content:
        raise ValueError("expected public keys but got a private one, which belongs elsewhere")
    if b"-----BEGIN " in content:
        content = msgspec.json.encode({"keys": _from_pem(content)})
    elif any("d" in jwk or "k" in jwk for jwk in _jwks(content)):
        raise ValueError("expected public keys but got a private one, which belongs elsewhere")
    found = of_document(content, algorithms)
    if not len(found):
        raise ValueError(f"expected a key for {' or '.join(algorithms)} but there is none")
    return found


def _jwks(content: bytes) -> list[dict[str, Any]]:
    try:
        document = decode(content)
    except BadRequest as error:
        raise ValueError(f"expected a JWKS: {error.detail}") from None
    keys = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(keys, list):
        raise ValueError('expected a JWKS: an object with a list as "keys"')
    return [jwk for jwk in keys if isinstance(jwk, dict)]


def _key(jwk: Mapping[str, Any], algorithms: Collection[Algorithm]) -> Key | None:
    """Return a key of a JWKS, or None if it is of no use. There is no secret in a published set."""
    usable = set(_fitting(jwk)).intersection(algorithms)
    kid = jwk.get("kid")
    if not usable or jwk["kty"] == "oct" or not isinstance(kid, str | None):
        return None
    public = {name: jwk[name] for name in PUBLIC if name in jwk}
    try:
        uses = {each: jwt.PyJWK(public, each) for each in usable}
    except (jwt.PyJWTError, ValueError, TypeError, UnsupportedAlgorithm):
        return None
    return Key(kid, uses) if all(_strong(use.key) for use in uses.values()) else None


def _fitting(jwk: Mapping[str, Any]) -> Collection[Algorithm]:
    """Return the algorithms that a key says it is for: by its kind, `alg`, `use` and `key_ops`."""
    kind, curve = jwk.get("kty"), jwk.get("crv")
    if not isinstance(kind, str) or not isinstance(curve, str | None):
        return ()
    operations = jwk.get("key_ops", ["verify"])
    if jwk.get("use", "sig") != "sig" or not isinstance(operations, list):
        return ()
    if "verify" not in operations:
        return ()
    fitting = FITTING.get((kind, curve), ())
    own = jwk.get("alg")
    return [each for each in fitting if own is None or own == each]


def _strong(key: object) -> bool:
    match key:
        case RSAPublicKey():
            return key.key_size in RSA_BITS
        case Ed25519PublicKey():
            raw = key.public_bytes_raw()
            return raw[:31] + bytes([raw[31] & 0x7F]) not in SMALL_ORDER
        case EllipticCurvePublicKey():
            return True
    return False


_PEM = re.compile(rb"-----BEGIN ([A-Z ]+)-----.*?-----END \1-----", re.DOTALL)


def _from_pem(content: bytes) -> list[dict[str, Any]]:
    """Return the public keys of PEM blocks as JWKs. Raises `ValueError`."""
    found = []
    for block in _PEM.finditer(content):
        try:
            if block[1] == b"CERTIFICATE":
                key: object = x509.load_pem_x509_certificate(block[0]).public_key()
            else:
                key = load_pem_public_key(block[0])
        except (ValueError, UnsupportedAlgorithm) as error:
            raise ValueError(f"expected public keys in PEM: {error}") from None
        found.append(_to_jwk(key))
    return found


def _to_jwk(key: object) -> dict[str, Any]:
    match key:
        case RSAPublicKey():
            return implementations.RSAAlgorithm.to_jwk(key, as_dict=True)
        case EllipticCurvePublicKey():
            return implementations.ECAlgorithm.to_jwk(key, as_dict=True)
        case Ed25519PublicKey():
            return implementations.OKPAlgorithm.to_jwk(key, as_dict=True)
    raise ValueError(f"expected an RSA, EC or Ed25519 key but got {type(key).__name__}")
