"""Signed tokens: what a JWT says, and whether that is what is expected. No I/O, no cryptography.

Follows RFC 7519 and the best current practices of RFC 8725. A header only ever chooses among what
is configured: `jku`, `x5u`, `jwk` and `x5c`, by which a token would bring its own key, count for
nothing.
"""

import base64
import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.authconfig import Algorithm
from gateway.errors import BadRequest, InvalidToken, TokenFault
from gateway.policy.documents import decode
from gateway.principals import AuthType, Principal

_FORM = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.[A-Za-z0-9_-]*")
"""Three segments without padding, RFC 7515 section 7.1. An encrypted token has five."""
_BEGINNING = "eyJ"
"""Of a token whose header is an object: `{"` in Base64."""
_REFUSED = ("crit", "b64", "enc", "zip")
"""Header parameters that change what a token means, in ways that are not known here."""
MAX_NAME = 255
"""Characters of an id, a role or a `jti`."""
LATEST = 253_402_300_800
"""The year 10000. A later time is no time."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What the claims of an issuer's tokens must be, and which of them are of use."""

    issuer: str
    audience: Collection[str]
    id: str
    roles: str
    leeway: float = 0.0


@dataclass(frozen=True, slots=True)
class Unverified:
    """What a token says as long as nobody has looked at its signature: nothing to rely on."""

    header: Mapping[str, Any]
    claims: Mapping[str, Any]
    digest: str
    """Of header and claims as they are signed: a signature can have several forms."""

    @property
    def issuer(self) -> object:
        return self.claims.get("iss")

    @property
    def kid(self) -> str | None:
        """Which key it was signed with. Raises `InvalidToken`."""
        kid = self.header.get("kid")
        if not isinstance(kid, str | None):
            raise InvalidToken("expected a text as kid", TokenFault.MALFORMED)
        return kid

    def algorithm(self, allowed: Collection[Algorithm]) -> Algorithm:
        """Return what it was signed with, one of those that are allowed. Raises `InvalidToken`."""
        for algorithm in allowed:
            if self.header.get("alg") == algorithm.value:
                return algorithm
        message = f"expected a token that is signed with {' or '.join(allowed)}"
        raise InvalidToken(message, TokenFault.ALGORITHM)

    def check_header(self, types: Collection[str]) -> None:
        """Return if the header asks for nothing special. `types` is what `typ` may be.

        Raises:
            InvalidToken: it does, or it is a token for something else (RFC 8725, section 3.11).
        """
        for name in _REFUSED:
            if name in self.header:
                raise InvalidToken(f"expected no {name} in the header", TokenFault.MALFORMED)
        given = self.header.get("typ", "JWT")
        plain = given.lower().removeprefix("application/") if isinstance(given, str) else None
        if plain not in {each.lower() for each in types}:
            raise InvalidToken(f"expected {' or '.join(types)} as typ", TokenFault.MALFORMED)
        if "cty" in self.header:
            raise InvalidToken("expected claims but got a nested token", TokenFault.MALFORMED)


def parse(token: str) -> Unverified | None:
    """Read a JWT without believing it; None if it is none.

    Raises:
        InvalidToken: it looks like one, but cannot be read.
    """
    form = _FORM.fullmatch(token)
    if form is None:
        return None
    try:
        header, claims = _object(form[1]), _object(form[2])
    except (ValueError, BadRequest):
        if not token.startswith(_BEGINNING):
            return None
        message = "expected a header and claims as JSON objects, each member once"
        raise InvalidToken(message, TokenFault.MALFORMED) from None
    signed = token.rpartition(".")[0]
    return Unverified(header, claims, hashlib.sha256(signed.encode()).hexdigest()[:32])


def _object(segment: str) -> dict[str, Any]:
    """Decode a segment. Raises `ValueError`, `BadRequest`."""
    content = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    if base64.urlsafe_b64encode(content).rstrip(b"=") != segment.encode():
        raise ValueError("bits are set that mean nothing")
    found = decode(content)
    if not isinstance(found, dict):
        raise ValueError("expected an object")
    return found


def judge(claims: Mapping[str, Any], expected: Expected, *, now: float, token_id: str) -> Principal:
    """Return who the claims of a verified token speak of. `token_id` names it if it does not.

    Raises:
        InvalidToken: it is not valid now, not for us, or does not say who it is.
    """
    if claims.get("iss") != expected.issuer:
        raise InvalidToken(f"expected a token of {expected.issuer}", TokenFault.UNKNOWN_ISSUER)
    if "exp" not in claims:
        raise InvalidToken("expected a token that expires: it has no exp", TokenFault.CLAIMS)
    expires = check_times(claims, now=now, leeway=expected.leeway)
    check_audience(claims, expected.audience)
    return speaker(claims, expected, expires=expires, token_id=token_id)


def check_times(claims: Mapping[str, Any], *, now: float, leeway: float) -> float | None:
    """Return until when claims hold; None for ever. Raises `InvalidToken` if they do not now."""
    expires = _time(claims, "exp")
    if expires is not None and expires + leeway <= now:
        raise InvalidToken("the token has expired", TokenFault.EXPIRED)
    for name in ("nbf", "iat"):
        begins = _time(claims, name)
        if begins is not None and begins - leeway > now:
            message = f"the token is not valid yet: its {name} is in the future"
            raise InvalidToken(message, TokenFault.NOT_YET_VALID)
    return None if expires is None else expires + leeway


def _time(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None and name not in claims:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < LATEST:
        raise InvalidToken(f"expected {name} in seconds since 1970", TokenFault.CLAIMS)
    return float(value)


def check_audience(claims: Mapping[str, Any], audience: Collection[str]) -> None:
    """Return if claims are meant for one of the audience. Raises `InvalidToken`."""
    given = claims.get("aud")
    names = [given] if isinstance(given, str) else given
    if not isinstance(names, list) or not any(name in audience for name in names):
        message = f"expected a token for the audience {' or '.join(audience)}"
        raise InvalidToken(message, TokenFault.AUDIENCE)


def speaker(
    claims: Mapping[str, Any], expected: Expected, *, expires: float | None, token_id: str
) -> Principal:
    """Return the principal that claims speak of. Raises `InvalidToken` if they name none."""
    identity = member(claims, expected.id)
    if not _is_name(identity):
        message = f"expected 1 to {MAX_NAME} printable characters as {expected.id}"
        raise InvalidToken(message, TokenFault.CLAIMS)
    own = claims.get("jti")
    return Principal(
        id=str(identity),
        type=_type(claims),
        issuer=expected.issuer,
        roles=_roles(member(claims, expected.roles)),
        claims=claims,
        token_id=own if isinstance(own, str) and _is_name(own) else token_id,
        expires=expires,
    )


def _type(claims: Mapping[str, Any]) -> AuthType:
    """Tell programs from people: a client that acts for itself is its own subject (RFC 9068)."""
    subject = claims.get("sub")
    client = claims.get("client_id", claims.get("azp"))
    return AuthType.SERVICE_ACCOUNT if subject and subject == client else AuthType.USER


def member(claims: Mapping[str, Any], path: str) -> object:
    """Return a claim by its name, or one inside others by a dotted path; None if there is none."""
    if path in claims:  # names may have dots themselves: https://example.com/roles
        return claims[path]
    value: object = claims
    for part in path.split("."):
        if not isinstance(value, dict) or part not in value:
            return None
        value = value[part]
    return value


def _roles(value: object) -> tuple[str, ...]:
    """Return roles: a list's, or the words of a text, as `scope` has them (RFC 8693)."""
    found = value.split() if isinstance(value, str) else value
    if not isinstance(found, list):
        return ()
    return tuple(each for each in found if _is_name(each))


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_NAME and value.isprintable()
