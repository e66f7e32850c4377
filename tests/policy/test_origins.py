"""Which pages may talk to the gateway."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.origins import Origins, normalized

LISTED = Origins(["https://app.example", "http://localhost:3000", "https://[::1]:8443"])


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        (None, "gateway.example"),  # no browser
        ("https://app.example", "gateway.example"),
        ("https://app.example:443", "gateway.example"),
        ("HTTPS://App.Example", "gateway.example"),
        ("http://localhost:3000", "gateway.example"),
        ("https://[::1]:8443", "gateway.example"),
        ("https://gateway.example", "gateway.example"),
        ("http://gateway.example", "gateway.example"),
        ("https://gateway.example", "Gateway.Example:443"),
        ("http://127.0.0.1:8080", "127.0.0.1:8080"),
        ("http://[::1]:8080", "[::1]:8080"),
    ],
)
def test_what_is_listed_and_the_gateways_own_origin_are_trusted(
    origin: str | None, host: str
) -> None:
    assert LISTED.trusts(origin, host)
    assert LISTED.allows(origin, host)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("https://evil.example", "gateway.example"),
        ("http://app.example", "gateway.example"),
        ("https://app.example:8443", "gateway.example"),
        ("https://app.example.evil", "gateway.example"),
        ("https://evil-app.example", "gateway.example"),
        ("https://app.example/", "gateway.example"),
        ("https://app.example@evil.example", "gateway.example"),
        ("https://gateway.example:8443", "gateway.example"),
        ("https://gateway.example", None),
        ("https://", ""),
        ("null", "null"),
        ("", ""),
        ("*", "*"),
        ("file://", ""),
        ("https://a, https://app.example", "gateway.example"),
    ],
)
def test_all_others_are_not(origin: str, host: str | None) -> None:
    assert not LISTED.trusts(origin, host)
    assert not LISTED.allows(origin, host)


def test_a_page_over_plain_http_is_a_stranger_to_a_gateway_with_tls() -> None:
    origins = Origins(tls=True)
    assert origins.trusts("https://gateway.example", "gateway.example")
    assert not origins.trusts("http://gateway.example", "gateway.example")


def test_where_all_are_allowed_only_the_own_one_is_trusted() -> None:
    origins = Origins(["*"])
    assert origins.allows("https://evil.example", "gateway.example")
    assert origins.allows("null", "gateway.example")
    assert not origins.trusts("https://evil.example", "gateway.example")
    assert origins.trusts("https://gateway.example", "gateway.example")


@given(st.text(max_size=400), st.text(max_size=400))
def test_nothing_that_a_peer_sends_is_an_error(origin: str, host: str) -> None:
    if Origins().trusts(origin, host):
        assert normalized(origin) is not None
