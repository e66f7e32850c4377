"""Where the log is: what a `[broker]` URL says, and how it is shown to people. No I/O.

    redis://user:password@host:6379/0           a server; rediss:// over TLS
    unix:///run/redis.sock?db=0                 a server on this machine
    redis+sentinel://user:password@host1:26379,host2:26379/mymaster?db=0
                                                whatever server is the master of that name

User and password are for the server. Sentinels that ask for some are given them by the options
`sentinel_username` and `sentinel_password`.
"""

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

REDIS_PORT, SENTINEL_PORT = 6379, 26379
"""Where no port is named."""

_TLS_OPTIONS = frozenset(
    {"ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname", "ssl_cert_reqs"}
)
_SENTINEL_OPTIONS = frozenset({"sentinel_username", "sentinel_password"})
_SENTINEL = "+sentinel"
_SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel")
_FALSE = ("0", "f", "false", "n", "no")
_ENCODE = "in a password, percent-encode : / ? # [ ] @"


@dataclass(frozen=True, slots=True)
class Address:
    """What a URL says."""

    hosts: tuple[tuple[str, int], ...] = ()
    """The server's host and port; those of the Sentinels, where there is a master's name."""
    path: str = ""
    """Of the server's socket, where there is no host."""
    master: str = ""
    """The name under which the Sentinels watch the server."""
    tls: bool = False
    """To the server, and to the Sentinels."""
    tls_options: dict[str, str | bool] = field(default_factory=dict)
    """Under the names that redis-py has for them."""
    login: dict[str, Any] = field(default_factory=dict, repr=False)
    """To the server: `username`, `password` and `db`, those that there are."""
    sentinel_login: dict[str, Any] = field(default_factory=dict, repr=False)
    """To the Sentinels: `username` and `password`, those that there are."""


def parse(url: str) -> Address:
    """Return what `url` says. Raises `ValueError`, which never shows a password."""
    try:
        parts = urlsplit(url)
        mistake = _mistake(parts)
        if mistake is None:
            return _address(parts)
    except ValueError:
        # What urllib raises may quote a password that has a slash in it.
        mistake = f"has a part that cannot be read; {_ENCODE}"
    raise ValueError(
        f"expected redis://, rediss://, unix:// or redis+sentinel:// but {redacted(url)} {mistake}"
    )


def redacted(url: str) -> str:
    """Return `url` without password and query, for messages and logs."""
    try:
        parts = urlsplit(url)
        hosts = _hosts(parts)
    except ValueError:
        return "the configured URL"
    if "@" in parts.path + parts.query + parts.fragment or not (hosts or parts.scheme == "unix"):
        return "the configured URL"  # a password with one of / ? # in it ended up anywhere
    user = f"{parts.username}@" if parts.username else ""
    where = ",".join(host_and_port(host, port) for host, port in hosts)
    return f"{parts.scheme}://{user}{where}{parts.path}"


def host_and_port(host: str, port: int | None) -> str:
    """Return them as they stand in a URL."""
    bracketed = f"[{host}]" if ":" in host else host
    return f"{bracketed}:{port}" if port else bracketed


def _hosts(parts: SplitResult) -> list[tuple[str, int | None]]:
    """Return the hosts with their ports. Raises `ValueError`."""
    several = parts.netloc.rpartition("@")[2]
    each = [urlsplit(f"//{one}") for one in several.split(",")] if several else []
    return [(one.hostname or "", one.port) for one in each if one.hostname or len(each) > 1]


def _mistake(parts: SplitResult) -> str | None:
    if parts.scheme not in _SCHEMES:
        return "is none of them"
    watched = parts.scheme.endswith(_SENTINEL)
    known = sorted({"db"} | _TLS_OPTIONS | (_SENTINEL_OPTIONS if watched else set()))
    unknown = sorted({name for name, _ in parse_qsl(parts.query)} - set(known))
    if unknown:
        return f"has the option {unknown[0]!r}; known are {', '.join(known)}"
    if parts.fragment:
        return f"has a part after #; {_ENCODE}"
    path = parts.path.strip("/")
    if parts.scheme == "unix":
        if parts.hostname or not path:
            return "has no absolute path: write unix:///path/to/socket"
        return None
    hosts = _hosts(parts)
    if not hosts or any(not host or port == 0 for host, port in hosts):
        return "names no host"
    if watched:
        return None if path and "/" not in path else f"names no master: write {_example(parts)}"
    if len(hosts) > 1:
        return f"names several hosts: if they are Sentinels, write {_example(parts)}"
    if not (path or "0").isdecimal():
        return "has a path that is not the number of a database"
    return None


def _example(parts: SplitResult) -> str:
    return f"{parts.scheme.removesuffix(_SENTINEL)}{_SENTINEL}://host1:26379,host2:26379/mymaster"


def _address(parts: SplitResult) -> Address:
    """Return what the parts say. Raises `ValueError`."""
    options = dict(reversed(parse_qsl(parts.query)))  # the first of each name
    watched, local = parts.scheme.endswith(_SENTINEL), parts.scheme == "unix"
    path = unquote(parts.path)
    login = _login(unquote(parts.username or ""), unquote(parts.password or ""))
    db = options.get("db", "0" if watched or local else path.strip("/") or "0")
    port = SENTINEL_PORT if watched else REDIS_PORT
    return Address(
        hosts=tuple((unquote(host), given or port) for host, given in _hosts(parts)),
        path=path if local else "",
        master=path.strip("/") if watched else "",
        tls=parts.scheme.startswith("rediss"),
        tls_options={
            name: _tls_option(name, value)
            for name, value in options.items()
            if name in _TLS_OPTIONS
        },
        login=login | {"db": int(db)},
        sentinel_login=_login(
            options.get("sentinel_username", ""), options.get("sentinel_password", "")
        ),
    )


def _login(username: str, password: str) -> dict[str, Any]:
    said = {"username": username, "password": password}
    return {name: value for name, value in said.items() if value}


def _tls_option(name: str, value: str) -> str | bool:
    return value.lower() not in _FALSE if name == "ssl_check_hostname" else value
