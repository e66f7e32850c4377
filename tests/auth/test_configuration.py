"""`[auth]`: what is wrong with it is told with its line, what is right is shown without secrets."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from gateway.__main__ import main
from gateway.authconfig import IntrospectionConfig, JWTConfig
from gateway.config import AuthConfig, Config
from gateway.errors import ConfigError
from gateway.policy import load_checked, summary
from tests.auth.issuing import jwk, jwks, pem, private_key

SECRET = "hunter2-hunter2-hunter2-hunter2-"

RIGHT = f"""
[auth]
api_keys = "api-keys.toml"
[[auth.jwt]]
issuer = "https://id.example.com"
audience = ["a", "b"]
jwks_url = "https://id.example.com/keys"
[[auth.jwt]]
issuer = "files"
audience = ["a"]
keys = "keys.json"
algorithms = ["EdDSA", "RS512"]
[[auth.jwt]]
issuer = "shared"
audience = ["a"]
secret = "{SECRET}"
[auth.introspection]
url = "http://[::1]:1/introspect"
client_id = "me"
client_secret = "{SECRET}"
"""


def problems(folder: Path, text: str) -> list[tuple[int, str]]:
    (folder / "gateway.toml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_checked(folder, {})
    assert "hunter2" not in str(caught.value)
    return [(each.line, each.message) for each in caught.value.problems]


@pytest.fixture
def right(tmp_path: Path) -> Path:
    (tmp_path / "gateway.toml").write_text(RIGHT)
    (tmp_path / "api-keys.toml").write_text("")
    (tmp_path / "keys.json").write_bytes(jwks(jwk("EdDSA", "k")))
    return tmp_path


def test_what_is_configured_is_shown_without_secrets(right: Path) -> None:
    config, policy = load_checked(right, {})
    assert config.auth.configured
    assert policy.permissions.secured
    found = summary(config, policy)
    assert found["auth"] == {
        "anonymous": False,
        "jwt": [
            {
                "issuer": "https://id.example.com",
                "audience": ["a", "b"],
                "algorithms": ["RS256", "PS256", "ES256", "EdDSA"],
                "keys": "https://id.example.com/keys",
            },
            {
                "issuer": "files",
                "audience": ["a"],
                "algorithms": ["EdDSA", "RS512"],
                "keys": str(right / "keys.json"),
            },
            {"issuer": "shared", "audience": ["a"], "algorithms": ["HS256"], "keys": "a secret"},
        ],
        "introspection": "http://[::1]:1/introspect",
        "api_keys": str(right / "api-keys.toml"),
    }
    assert "hunter2" not in json.dumps(found) + repr(config) + str(config)


def test_a_check_prints_it(right: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(right)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "Callers https://id.example.com's tokens for a or b: RS256 or" in out
    assert "other tokens: http://[::1]:1/introspect is asked" in out
    assert "API keys in " in out
    assert "hunter2" not in out


def test_without_any_it_says_that_anybody_may(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gateway.toml").write_text("")
    assert main(["check", str(tmp_path)]) == 0
    assert "Callers anybody " in " ".join(capsys.readouterr().out.split())


ISSUER = "[[auth.jwt]]\nissuer = 'i'\naudience = ['a']\n"
URL = "jwks_url = 'https://i/keys'\n"
ASKED = "[auth.introspection]\nclient_id = 'c'\nclient_secret = 'hunter2'\n"


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (
            ISSUER,
            1,
            "auth.jwt[0]: expected one of jwks_url, keys, secret, secret_file but got none",
        ),
        (ISSUER + URL + "keys = 'k'\n", 1, "but got jwks_url and keys"),
        (ISSUER + f"secret = '{SECRET}'\nsecret_file = 's'\n", 1, "but got secret and secret_file"),
        ("[[auth.jwt]]\nissuer = 'i'\n" + URL, 1, "auth.jwt[0].audience: expected at least one"),
        (ISSUER + URL + ISSUER + URL, 6, "auth.jwt[1].issuer: 'i' is there already"),
        (ISSUER + URL + "algorithms = ['none']\n", 5, "expected RS256 or"),
        (ISSUER + URL + "algorithms = ['RS256', 'HS256']\n", 5, "expected no HS for published"),
        (ISSUER + f"secret = '{SECRET}'\nalgorithms = ['RS256']\n", 5, "HS256, HS384 or HS512 for"),
        (ISSUER + "secret = 'hunter2'\n", 4, "expected a secret of 32 bytes or more but got 7"),
        (ISSUER + f"secret = '{SECRET}'\nalgorithms = ['HS512']\n", 4, "of 64 bytes or more but"),
        (ISSUER + "secret_file = 'short'\n", 4, "expected a secret of 32 bytes or more but got 7"),
        (ISSUER + "secret_file = 'public.pem'\n", 4, "something that holds a public key"),
        (ISSUER + "secret_file = 'none'\n", 4, "there is no such file; looked for"),
        (ISSUER + "keys = 'none'\n", 4, "auth.jwt[0].keys: there is no such file; looked for"),
        (ISSUER + "keys = '.'\n", 4, "cannot be read"),
        (ISSUER + "keys = 'short'\n", 4, "expected a JWKS"),
        (ISSUER + "keys = 'private.json'\n", 4, "expected public keys but got a private one"),
        (ISSUER + "keys = 'private.pem'\n", 4, "expected public keys but got a private one"),
        (ISSUER + "keys = 'broken.pem'\n", 4, "expected public keys in PEM"),
        (ISSUER + "keys = 'public.pem'\nalgorithms = ['ES256']\n", 4, "expected a key for ES256"),
        (ISSUER + "jwks_url = 'http://i/keys'\n", 4, "expected https://"),
        (ISSUER + "jwks_url = 'http://localhost.evil.com/keys'\n", 4, "expected https://"),
        (ISSUER + "jwks_url = 'file:///etc/passwd'\n", 4, "expected a URL"),
        (ISSUER + "jwks_url = 'https://a:hunter2@i/keys'\n", 4, "expected a URL without user"),
        (ISSUER + "jwks_url = 'https://i:99999/keys'\n", 4, "expected a URL"),
        (ISSUER + "jwks_url = 'https://i/a b'\n", 4, "expected a URL"),
        (ISSUER + URL + "jwks_ulr = 'x'\n", 5, "unknown key; did you mean 'jwks_url'?"),
        (ASKED + "url = 'http://10.0.0.1/'\n", 4, "auth.introspection.url: expected https://"),
        (
            ASKED + "url = 'https://i/'\nclient_secret_file = 'short'\n",
            1,
            "expected either client_",
        ),
        (ASKED.replace("'c'", "''") + "url = 'https://i/'\n", 2, "expected the id that"),
        ("[auth]\napi_keys = 'none'\n", 2, "there is no such file; looked for"),
        ("[auth]\napi_keys = 'wrong.toml'\n", 2, "wrong.toml: line 1: "),
    ],
)
def test_what_is_wrong_is_told_with_its_line(
    tmp_path: Path, text: str, line: int, message: str
) -> None:
    (tmp_path / "short").write_text("hunter2\n")
    (tmp_path / "wrong.toml").write_text("[[keys]]\n")
    (tmp_path / "public.pem").write_bytes(pem("RS256"))
    (tmp_path / "private.pem").write_bytes(b"-----BEGIN PRIVATE KEY-----\n")
    (tmp_path / "broken.pem").write_bytes(pem("RS256").replace(b"MII", b"AAA"))
    (tmp_path / "private.json").write_bytes(jwks(jwk("EdDSA", "k") | {"d": "hunter2"}))
    found = problems(tmp_path, text)
    assert [each for each, _ in found] == [line]
    assert message in found[0][1]


def test_secrets_are_in_no_repr() -> None:
    config = Config(
        auth=AuthConfig(
            jwt=[JWTConfig(issuer="i", secret=SECRET)],
            introspection=IntrospectionConfig(url="u", client_id="c", client_secret=SECRET),
        )
    )
    assert "hunter2" not in f"{config} {config!r}"
    assert "issuer='i'" in repr(config)


def test_a_certificate_is_a_key_too(tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_bytes(certificate())
    (tmp_path / "gateway.toml").write_text(ISSUER + "keys = 'cert.pem'\n")
    config, _ = load_checked(tmp_path, {})
    assert config.auth.configured


def certificate() -> bytes:
    key = private_key("RS256")
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "id")])
    now = datetime.now(UTC)
    built = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
    return built.sign(key, SHA256()).public_bytes(Encoding.PEM)
