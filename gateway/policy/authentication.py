"""`[auth]` of the configuration: what must be true of it before anybody is asked or let in."""

import ipaddress
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from gateway.authconfig import USUAL, Algorithm, IntrospectionConfig, JWTConfig
from gateway.config import AuthConfig
from gateway.policy import keysets
from gateway.policy.apikeys import KeyRing
from gateway.policy.keysets import KeySet
from gateway.report import Report
from gateway.tomllines import KeyPath

T = TypeVar("T")


def check(config: AuthConfig, report: Report) -> None:
    """Report every problem that can be seen without asking anybody."""
    for index, issuer in enumerate(config.jwt):
        _check_issuer(issuer, ("auth", "jwt", index), report)
        with report.guard("auth", "jwt", index, "issuer"):
            if issuer.issuer in [each.issuer for each in config.jwt[:index]]:
                raise ValueError(f"{issuer.issuer!r} is there already")
    if config.introspection:
        _check_introspection(config.introspection, ("auth", "introspection"), report)
    if config.api_keys:
        with report.guard("auth", "api_keys"):
            read_file(config.api_keys, KeyRing.parse, hint="gateway token create makes one")


def _check_issuer(config: JWTConfig, at: KeyPath, report: Report) -> None:
    if not config.audience:
        message = "expected at least one audience, or tokens for anybody else would be taken"
        report.add((*at, "audience"), message)
    if len(key_settings(config)) != 1:
        given = " and ".join(key_settings(config)) or "none"
        report.add(at, f"expected one of {', '.join(KEY_SETTINGS)} but got {given}")
        return
    with report.guard(*at, "algorithms"):
        algorithms_of(config)
    (name,) = key_settings(config)
    with report.guard(*at, name):
        if config.jwks_url is not None:
            check_url(config.jwks_url)
        elif fitting(config):
            fixed_keys(config)


def _check_introspection(config: IntrospectionConfig, at: KeyPath, report: Report) -> None:
    with report.guard(*at, "url"):
        check_url(config.url)
    if not config.client_id:
        report.add((*at, "client_id"), "expected the id that the provider knows the gateway by")
    if (config.client_secret is None) == (config.client_secret_file is None):
        report.add(at, "expected either client_secret or client_secret_file")
    elif config.client_secret_file:
        with report.guard(*at, "client_secret_file"):
            client_secret(config)


KEY_SETTINGS = ("jwks_url", "keys", "secret", "secret_file")


def key_settings(config: JWTConfig) -> list[str]:
    """Return by which settings an issuer says where its keys are: there must be one."""
    return [name for name in KEY_SETTINGS if getattr(config, name) is not None]


def algorithms_of(config: JWTConfig) -> Sequence[Algorithm]:
    """Return what an issuer's tokens may be signed with. Raises `ValueError` for a wrong choice."""
    symmetric = config.secret is not None or config.secret_file is not None
    if not config.algorithms:
        return (Algorithm.HS256,) if symmetric else USUAL
    if not fitting(config):
        wanted = "HS256, HS384 or HS512 for a secret" if symmetric else "no HS for published keys"
        raise ValueError(f"expected {wanted}: who can read a key must not be able to sign with it")
    return config.algorithms


def fitting(config: JWTConfig) -> bool:
    """Return whether the algorithms fit the keys: secrets to HS, and nothing else."""
    symmetric = config.secret is not None or config.secret_file is not None
    return all(each.symmetric == symmetric for each in config.algorithms)


def fixed_keys(config: JWTConfig) -> KeySet:
    """Return the keys of an issuer that are here and not at a URL. Raises `ValueError`."""
    algorithms = algorithms_of(config)
    if config.keys is not None:
        return read_file(config.keys, lambda content: keysets.of_file(content, algorithms))
    if config.secret is not None:
        return keysets.of_secret(config.secret.encode(), algorithms)
    assert config.secret_file is not None
    return keysets.of_secret(read_secret(config.secret_file), algorithms)


def client_secret(config: IntrospectionConfig) -> str:
    """Return what the gateway shows to the provider. Raises `ValueError`."""
    if config.client_secret is not None:
        return config.client_secret
    assert config.client_secret_file is not None
    found = read_secret(config.client_secret_file)
    if not (found and found.isascii()):
        raise ValueError("expected a secret of ASCII characters")
    return found.decode()


def read_secret(path: Path) -> bytes:
    """Return what a file holds, less the line break that editors put at its end."""
    return read_file(path, lambda content: content.rstrip(b"\r\n"))


def read_file(path: Path, read: Callable[[bytes], T], *, hint: str = "") -> T:
    """Return what `read` makes of a file. Raises `ValueError`, for a file that is not there too."""
    try:
        return read(path.read_bytes())
    except FileNotFoundError:
        more = f"; {hint}" if hint else ""
        raise ValueError(f"there is no such file; looked for {path}{more}") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def check_url(url: str) -> None:
    """Return if a provider may be asked there. Raises `ValueError`, without the URL's secrets."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError("expected a URL") from None
    if not url.isascii() or not url.isprintable() or " " in url or not host:
        raise ValueError("expected a URL such as https://id.example.com/keys")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise ValueError("expected a URL without user, password and fragment")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(host)):
        raise ValueError("expected https://, because who can change the answer decides who gets in")


def is_loopback(host: str) -> bool:
    """Tell whether a host is this machine, whatever any name server says."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def summary(config: AuthConfig) -> dict[str, Any]:
    """Return what is configured as plain data, without anything secret."""
    asked = config.introspection
    return {
        "anonymous": config.anonymous or not config.configured,
        "jwt": list(_issuers(config.jwt)),
        "introspection": asked.url if asked else None,
        "api_keys": str(config.api_keys) if config.api_keys else None,
    }


def _issuers(configs: Sequence[JWTConfig]) -> Iterator[dict[str, Any]]:
    for config in configs:
        place = config.jwks_url or (str(config.keys) if config.keys else "a secret")
        yield {
            "issuer": config.issuer,
            "audience": list(config.audience),
            "algorithms": [str(each) for each in algorithms_of(config)],
            "keys": place,
        }
