"""Addresses: where a request comes from, as far as that can be believed. No I/O.

Every proxy on the way notes from whom it took the request; a client can write such notes too. So
they are read from the nearest backwards, and believed as long as a proxy that is trusted wrote
them: the first address that is no such proxy's is the client's.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

UNKNOWN = "unknown"
"""Stands for the address of a client that a proxy does not tell, in RFC 7239's own word. It is not
the proxy's: that may be this machine's, or one that rules trust."""
MAX_HOPS = 20
"""Proxies on the way that are looked at: no real one is so long."""
MAX_FORWARDED = 4096
"""Characters of `Forwarded` that are read: it has to be read from its beginning, for each request,
and most of it can be the client's."""
CACHED = 4096
"""Addresses whose other forms are remembered. They come from strangers, so there is a bound."""

Network = IPv4Network | IPv6Network


class Proxies:
    """The proxies whose word on where a request comes from is taken."""

    def __init__(self, networks: Sequence[str]) -> None:
        """Take addresses and networks: `10.0.0.0/8`, `::1`. Raises `ValueError`."""
        self._networks = tuple(network(each) for each in networks)
        self._is_trusted = lru_cache(CACHED)(self._covers)

    def trusts(self, address: str) -> bool:
        """Return whether an address is that of a trusted proxy."""
        return bool(self._networks) and self._is_trusted(address)

    def client(self, peer: str, headers: Callable[[], Iterable[tuple[str, str]]]) -> str:
        """Return the address of the client whose request came over a connection from `peer`.

        `headers` gives lower-case names with values, a name several times where it was sent so; it
        is asked where the peer is trusted. Where what proxies say ends with something that is no
        address, the client is `UNKNOWN`. So it is where `Forwarded` and `X-Forwarded-For` say
        different things: the client has written one of them.
        """
        address = canonical(peer) or peer
        if not self.trusts(address):
            return address
        sent = [(name, value) for name, value in headers() if name in _READERS and value.strip()]
        found = set()
        for name, read in _READERS.items():
            values = [value for key, value in sent if key == name]
            if values:
                found.add(self._rightmost(address, read(",".join(values))))
        if not found:
            return address
        return found.pop() if len(found) == 1 else UNKNOWN

    def _rightmost(self, address: str, hops: Sequence[str]) -> str:
        for hop in hops[: -MAX_HOPS - 1 : -1]:
            before = canonical(_bare(hop))
            if before is None:  # hidden or garbage: what is before it cannot be believed
                return UNKNOWN
            address = before
            if not self.trusts(address):
                break
        return address

    def _covers(self, address: str) -> bool:
        try:
            parsed = ip_address(address)
        except ValueError:
            return False
        return any(parsed in each for each in self._networks)


def network(text: str) -> Network:
    """Read an address or a network. Raises `ValueError`, which says what was expected."""
    try:
        return ip_network(text)
    except ValueError:
        expected = "expected an address or a network such as 10.0.0.0/8"
        try:
            wider = ip_network(text, strict=False)
        except ValueError:
            raise ValueError(f"{expected} but got {text[:80]!r}") from None
        raise ValueError(f"{expected} but got {text!r}; did you mean '{wider}'?") from None


@lru_cache(CACHED)
def canonical(text: str) -> str | None:
    """Return the one form of an address; None if it is none. IPv4 within IPv6 becomes IPv4."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return str(address)


@lru_cache(CACHED)
def block(address: str) -> str:
    """Return what counts as one client: an IPv4 address, or the /64 that any IPv6 client has."""
    return _network(address, 64)


@lru_cache(CACHED)
def site(address: str) -> str:
    """Return the most that one client may have: an IPv4 address, or the /48 of an IPv6 site."""
    return _network(address, 48)


def _network(address: str, bits: int) -> str:
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4:
        return address
    rest = 128 - bits
    return str(ip_network((int(parsed) >> rest << rest, bits)))


@lru_cache(CACHED)
def is_loopback(address: str) -> bool:
    """Return whether an address is this machine's own; that of a Unix socket, which is none, is."""
    try:
        return not address or ip_address(address).is_loopback
    except ValueError:
        return False


def _bare(hop: str) -> str:
    """Return an address without its port and brackets."""
    hop = hop.strip()
    found = _BRACKETED.fullmatch(hop) or _WITH_PORT.fullmatch(hop)
    return found[1] if found else hop


_BRACKETED = re.compile(r"\[([0-9A-Fa-f:.]{2,45})\](?::[0-9]{1,5})?")
_WITH_PORT = re.compile(r"([0-9.]{7,15}):[0-9]{1,5}")


def _x_forwarded_for(value: str) -> list[str]:
    return value.rsplit(",", MAX_HOPS)[-MAX_HOPS:]


_PAIR = re.compile(
    r'([;,]?)[ \t]*([!#$%&\'*+.^_`|~0-9A-Za-z-]+)=("(?:[^"\\]|\\.)*"|[^",;\s]*)[ \t]*'
)


def _forwarded(value: str) -> list[str]:
    """Return the `for` of each element of `Forwarded`, RFC 7239; empty where there is none.

    What cannot be read makes all before it unbelievable, because nobody knows where it ends.
    """
    if len(value) > MAX_FORWARDED:
        return [""]
    return [*_elements(value)][-MAX_HOPS:]


def _elements(value: str) -> Iterator[str]:
    at, hop = 0, ""
    value = value.strip(" \t")
    while at < len(value):
        pair = _PAIR.match(value, at)
        if pair is None or (at > 0) != bool(pair[1]):
            yield ""  # garbage
            return
        if pair[1] == ",":
            yield hop
            hop = ""
        if pair[2].lower() == "for":
            text = pair[3]
            hop = re.sub(r"\\(.)", r"\1", text[1:-1]) if text.startswith('"') else text
        at = pair.end()
    yield hop


_READERS = {"forwarded": _forwarded, "x-forwarded-for": _x_forwarded_for}
