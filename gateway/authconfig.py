"""How credentials are told apart: `[[auth.jwt]]` and `[auth.introspection]` as structures.

They are shown without their secrets, wherever they are printed.
"""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

import msgspec

from gateway.settings import Period, Seconds, SharedSecret


class Algorithm(StrEnum):
    """What a JWT may be signed with, RFC 7518 and RFC 8037. There is no `none`."""

    RS256 = "RS256"
    RS384 = "RS384"
    RS512 = "RS512"
    PS256 = "PS256"
    PS384 = "PS384"
    PS512 = "PS512"
    ES256 = "ES256"
    ES384 = "ES384"
    ES512 = "ES512"
    EDDSA = "EdDSA"
    HS256 = "HS256"
    HS384 = "HS384"
    HS512 = "HS512"

    @property
    def symmetric(self) -> bool:
        """Whether who can verify can sign too."""
        return self.startswith("HS")

    @property
    def secret_size(self) -> int:
        """Bytes that a secret must have at least: as many as the hash, RFC 7518 section 3.2."""
        return int(self[2:]) // 8


USUAL = (Algorithm.RS256, Algorithm.PS256, Algorithm.ES256, Algorithm.EDDSA)
"""What published keys may be used with, unless the configuration names something else."""


class JWTConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[auth.jwt]]`: an issuer whose signed tokens are believed, RFC 7519.

    Its keys are in a file, at a URL, or are one secret: exactly one of these.
    """

    issuer: str
    """What `iss` must be, to the letter."""
    audience: Sequence[str] = ()
    """One of them must be in `aud`. At least one is needed."""
    jwks_url: str | None = None
    """Where the issuer publishes its keys, RFC 7517; `https://`, or the loopback."""
    keys: Path | None = None
    """A file with its public keys: a JWKS, or PEM. It is read again when it changes."""
    secret: SharedSecret | None = None
    """The secret that HS tokens are signed with."""
    secret_file: Path | None = None
    """A file that holds the secret; a line break at its end does not count."""
    algorithms: Sequence[Algorithm] = ()
    """Without any: HS256 for a secret, otherwise `USUAL`."""
    types: Sequence[str] = ("JWT", "at+jwt")
    """What `typ` may be; a token without one counts as `JWT`."""
    id: str = "sub"
    """The claim that says who it is; of a claim inside others, the dotted path."""
    roles: str = "roles"
    """The claim that says which roles it has, likewise: a list, or words in a text."""
    leeway: Seconds = Seconds(30)
    """By how much the issuer's clock may be wrong."""
    refresh: Period = Seconds(600)
    """How often the keys are fetched anew, beside when there is a token with an unknown one."""
    max_stale: Period = Seconds(86_400)
    """How long the last keys go on being used while the URL does not give any."""

    def __repr__(self) -> str:
        return f"JWTConfig(issuer={self.issuer!r}, …)"


class IntrospectionConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[auth.introspection]`: the provider is asked what a token is worth, RFC 7662."""

    url: str
    """`https://`, or the loopback."""
    client_id: str
    client_secret: SharedSecret | None = None
    client_secret_file: Path | None = None
    issuer: str = ""
    """Whose tokens they are: what `iss` must be where the answer has one. Without it, the URL."""
    audience: Sequence[str] = ()
    """One of them must be in the answer's `aud`; without any, it is not looked at."""
    id: str = "sub"
    """The member of the answer that says who it is, as in `[[auth.jwt]]`."""
    roles: str = "roles"
    """The member that says which roles it has; `scope` is one too."""
    cache: Seconds = Seconds(30)
    """How long an answer is believed: a token that was revoked is refused after that."""
    timeout: Period = Seconds(5)
    """How long the provider may take to answer."""

    def __repr__(self) -> str:
        return f"IntrospectionConfig(url={self.url!r}, …)"
