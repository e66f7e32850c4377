"""Addresses: whose word on where a request comes from is taken, and what is made of it."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.addresses import (
    MAX_FORWARDED,
    UNKNOWN,
    Proxies,
    block,
    canonical,
    is_loopback,
    network,
    site,
)

PROXIES = Proxies(["10.0.0.0/8", "192.0.2.1", "fd00::/8"])
PROXY, CLIENT = "10.0.0.1", "203.0.113.7"


def client(*headers: tuple[str, str], peer: str = PROXY) -> str:
    return PROXIES.client(peer, lambda: headers)


def forwarded_for(*values: str, peer: str = PROXY) -> str:
    return client(*[("x-forwarded-for", value) for value in values], peer=peer)


def forwarded(*values: str) -> str:
    return client(*[("forwarded", value) for value in values])


def test_a_stranger_is_not_believed() -> None:
    assert forwarded_for("1.2.3.4", peer=CLIENT) == CLIENT
    assert client(("forwarded", "for=1.2.3.4"), peer=CLIENT) == CLIENT


def test_nobody_is_believed_unless_it_is_configured() -> None:
    nobody = Proxies([])
    assert nobody.client("127.0.0.1", lambda: [("x-forwarded-for", "1.2.3.4")]) == "127.0.0.1"


def test_a_proxy_without_a_note_is_the_client() -> None:
    assert client() == PROXY
    assert client(("host", "example.com")) == PROXY


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([CLIENT], CLIENT),
        ([f"1.2.3.4, {CLIENT}"], CLIENT),  # the client wrote the first one itself
        ([f"1.2.3.4, {CLIENT}, 10.9.9.9, 192.0.2.1"], CLIENT),
        (["1.2.3.4", f"{CLIENT}, 10.9.9.9"], CLIENT),  # two lines are one list
        ([f"{CLIENT}:5678"], CLIENT),
        (["[2001:db8::1]:443"], "2001:db8::1"),
        (["[2001:db8::1]"], "2001:db8::1"),
        (["2001:DB8:0::1"], "2001:db8::1"),
        (["::ffff:203.0.113.7"], CLIENT),
        (["10.1.1.1, 10.2.2.2"], "10.1.1.1"),  # all of them trusted: the farthest
        (["fd00::7"], "fd00::7"),
    ],
)
def test_the_rightmost_address_that_is_no_proxys_is_the_client(
    values: list[str], expected: str
) -> None:
    assert forwarded_for(*values) == expected


@pytest.mark.parametrize(
    "value",
    [
        *(",", "unknown", "_hidden", "localhost", "1.2.3", "1.2.3.4.5", "300.1.1.1"),
        *("[::1", "::1]", "[1.2.3.4]:x", "1.2.3.4:port", "1.2.3.4:123456"),
        *("x" * 9999, "<script>", "\x00", "\u0661.2.3.4"),
    ],
)
def test_who_is_hidden_behind_a_proxy_is_not_taken_for_it(value: str) -> None:
    assert forwarded_for(value) == UNKNOWN
    assert forwarded_for(f"1.2.3.4, {value}, 10.5.5.5") == UNKNOWN


def test_who_is_unknown_is_nobody_in_particular() -> None:
    assert block(UNKNOWN) == UNKNOWN
    assert not is_loopback(UNKNOWN)
    assert not PROXIES.trusts(UNKNOWN)


def test_a_zone_is_no_part_of_an_address() -> None:
    assert forwarded_for("fe80::1%eth0") == "fe80::1"
    assert PROXIES.client("fe80::1%eth0", list) == "fe80::1"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([f"for={CLIENT}"], CLIENT),
        ([f'for="{CLIENT}:4711";proto=https;by=10.0.0.1'], CLIENT),
        ([f"proto=http;For={CLIENT}"], CLIENT),
        (['for="[2001:db8:cafe::17]:4711"'], "2001:db8:cafe::17"),
        ([f"for=1.2.3.4, for={CLIENT};host=a, for=10.3.3.3"], CLIENT),
        (["for=1.2.3.4", f"for={CLIENT}"], CLIENT),
        ([f'host="a, for=6.6.6.6; b";for={CLIENT}'], CLIENT),
        ([r'for="203.0.113.\7"'], CLIENT),
        (["for=unknown"], UNKNOWN),
        (["for=_gazonk"], UNKNOWN),
        (['for="_SEVKISEK:1"'], UNKNOWN),
        (["proto=https"], UNKNOWN),
        (["for=1.2.3.4, proto=https"], UNKNOWN),
        (['for=1.2.3.4, for="'], UNKNOWN),
        (["nonsense"], UNKNOWN),
        (["for=1.2.3.4 for=5.6.7.8"], UNKNOWN),
        ([",for=1.2.3.4"], UNKNOWN),
        ([""], PROXY),
    ],
)
def test_forwarded_is_read_as_rfc_7239_says(values: list[str], expected: str) -> None:
    assert forwarded(*values) == expected


def test_where_the_headers_disagree_the_client_wrote_one_of_them() -> None:
    both = [("x-forwarded-for", CLIENT), ("forwarded", f"for={CLIENT}")]
    assert client(*both) == CLIENT
    assert client(both[0], ("forwarded", "for=1.2.3.4")) == UNKNOWN
    assert client(both[0], ("forwarded", "garbage")) == UNKNOWN


def test_what_is_too_long_to_be_read_for_each_request_is_not() -> None:
    told = f"for={CLIENT}"
    assert forwarded("a=b;" * ((MAX_FORWARDED - len(told)) // 4) + told) == CLIENT
    assert forwarded("a=b;" * (MAX_FORWARDED // 4) + told) == UNKNOWN


def test_a_way_that_is_longer_than_any_is_not_followed_to_its_end() -> None:
    assert forwarded_for(", ".join(["1.2.3.4", *["10.0.0.9"] * 1000])) == "10.0.0.9"


@given(st.lists(st.tuples(st.sampled_from(["forwarded", "x-forwarded-for"]), st.text())))
def test_whatever_is_sent_the_answer_is_an_address(headers: list[tuple[str, str]]) -> None:
    found = PROXIES.client(PROXY, lambda: headers)
    assert found == UNKNOWN or ipaddress.ip_address(found)


@given(st.lists(st.text(alphabet='for=";,1.:[]_ \\', max_size=40)), st.text(max_size=20))
def test_what_stands_before_the_clients_address_changes_nothing(
    before: list[str], more: str
) -> None:
    value = ", ".join([*before, more, CLIENT])
    assert forwarded_for(value) == CLIENT


def test_an_ipv6_client_has_a_whole_block() -> None:
    assert block("2001:db8:1:2:3:4:5:6") == block("2001:db8:1:2::") == "2001:db8:1:2::/64"
    assert block("2001:db8:1:3::") != block("2001:db8:1:2::")
    assert block(CLIENT) == CLIENT
    assert block("") == ""


def test_an_ipv6_site_has_all_of_its_blocks() -> None:
    assert site("2001:db8:1:2:3:4:5:6") == site("2001:db8:1:ffff::") == "2001:db8:1::/48"
    assert site("2001:db8:2::") != site("2001:db8:1::")
    assert site(CLIENT) == CLIENT
    assert site(UNKNOWN) == UNKNOWN


def test_one_address_has_one_form() -> None:
    assert canonical("::FFFF:1.2.3.4") == "1.2.3.4"
    assert canonical("2001:DB8:0:0::1") == "2001:db8::1"
    assert canonical("nobody") is None


def test_loopback_is_this_machine() -> None:
    assert all(map(is_loopback, ["127.0.0.1", "127.9.9.9", "::1", ""]))
    assert not any(map(is_loopback, ["10.0.0.1", "::2", "testclient"]))


def test_a_network_that_is_none_is_told() -> None:
    assert str(network("::1")) == "::1/128"
    with pytest.raises(ValueError, match=r"did you mean '10\.0\.0\.0/8'"):
        network("10.0.0.1/8")
    with pytest.raises(ValueError, match="expected an address or a network such as"):
        network("proxy.example.com")
