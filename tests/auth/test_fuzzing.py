"""Tokens that nobody thought of: refused, and nothing else happens."""

import time
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.auth.authenticator import Authenticator
from gateway.auth.sources import sources_of
from gateway.authconfig import USUAL
from gateway.errors import InvalidToken
from gateway.policy.keysets import of_document
from gateway.telemetry.metrics import Metrics
from tests.auth.issuing import auth_config, claims, jwk, private_key, sign


@pytest.fixture(scope="module")
def authenticator(tmp_path_factory: pytest.TempPathFactory) -> Authenticator:
    config = auth_config(tmp_path_factory.mktemp("fuzz"))
    return Authenticator(sources_of(config), Metrics(), anonymous=False)


FUZZING = settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])


def refused(authenticator: Authenticator, token: str) -> bool:
    """Whether a token is refused as one; nothing here waits, so no loop is needed."""
    try:
        authenticator.principal(token, "192.0.2.1").send(None)
    except InvalidToken:
        return True
    except StopIteration:
        return False
    raise AssertionError("it waited")


@FUZZING
@given(token=st.text(max_size=200) | st.from_regex(r"[\w-]*\.[\w-]*\.[\w-]*", fullmatch=True))
def test_whatever_is_no_token_is_refused(authenticator: Authenticator, token: str) -> None:
    assert refused(authenticator, token)


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@FUZZING
@given(
    name=st.sampled_from(["alg", "kid", "typ", "cty", "crit", "b64", "zip", "enc", "x5c", "jwk"]),
    value=JSON,
)
def test_whatever_a_header_says_a_wrong_key_stays_wrong(
    authenticator: Authenticator, name: str, value: Any
) -> None:
    stranger = private_key("EdDSA", 9)
    assert refused(
        authenticator, sign(claims(), "EdDSA", "ed1", key=stranger, header={name: value})
    )


@FUZZING
@given(name=st.sampled_from(["iss", "aud", "exp"]), value=JSON)
def test_whatever_a_claim_is_it_must_be_right(
    authenticator: Authenticator, name: str, value: Any
) -> None:
    good = name == "exp" and not isinstance(value, bool) and isinstance(value, int | float)
    token = sign(claims() | {name: value}, "EdDSA", "ed1")
    assert refused(authenticator, token) or (good and time.time() - 31 < value < 253402300800)


@FUZZING
@given(st.data())
def test_a_token_in_which_anything_is_changed_is_refused(
    authenticator: Authenticator, data: st.DataObject
) -> None:
    token = sign(claims(), "EdDSA", "ed1")
    at = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.sampled_from("ABCDEFghijkl0123456789-_.").filter(lambda c: c != token[at]))
    assert refused(authenticator, token[:at] + other + token[at + 1 :])


@FUZZING
@given(
    algorithm=st.sampled_from(["RS256", "ES256", "EdDSA"]),
    name=st.sampled_from(["kty", "crv", "n", "e", "x", "y", "alg", "use", "key_ops", "kid"]),
    value=JSON | st.sampled_from(["RSA", "EC", "OKP", "P-256", "P-384", "", "AQ", "AA", "!"]),
)
def test_whatever_an_issuer_publishes_nothing_breaks(algorithm: str, name: str, value: Any) -> None:
    document = msgspec.json.encode({"keys": [jwk(algorithm, "k") | {name: value}, value]})
    assert len(of_document(document, USUAL)) <= 2
