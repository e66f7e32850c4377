"""Principals: what tells one from another."""

from gateway.principals import ANONYMOUS, AuthType, Principal


def user(identity: str, issuer: str) -> Principal:
    return Principal(id=identity, type=AuthType.USER, issuer=issuer)


def test_no_issuer_can_name_somebody_of_another() -> None:
    names = {
        user("x", "https://a:8443").name,
        user("8443:x", "https://a").name,
        user("//a:8443:x", "https").name,
        user("x", "https://a%3A8443").name,
        user("x", "").name,
        Principal(id="x", type=AuthType.API_KEY).name,
    }
    assert len(names) == 6


def test_nobody_in_particular_has_no_name() -> None:
    assert ANONYMOUS.name == ""
