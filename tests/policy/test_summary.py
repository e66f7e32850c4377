"""The summary that `gateway check` prints."""

import json
from pathlib import Path

import pytest

from gateway.errors import ConfigError
from gateway.policy import load_checked, summary

NO_RULES = {"subscribe": None, "publish": None, "read": None}
SECURED = """
[[auth.jwt]]
issuer = "https://id.example"
audience = ["shop"]
secret = "0123456789abcdef0123456789abcdef"
[[channels]]
pattern = "a"
publish = "'producer' in principal.roles"
"""


def test_a_summary_says_what_is_configured(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    (tmp_path / "gateway.toml").write_text(
        "[broker]\nnamespace = 'shop'\n[server]\nport = 99\n[worker]\nhandlers = ['json']\n"
        "[[commands]]\npath = '/a'\ntype = 'a'\nstream = 's'\nkey = 'data.k'\nschema = 'a.json'\n"
        "allow = \"data.k == 'x'\"\n"
        "routes = [{ when = 'data.x', stream = 't' }]\n"
        "[[channels]]\npattern = 'c'\nhistory = { size = 5, ttl = '1m', allow = 'false' }\n"
        "subscribe = 'true'\npublish = '1 == 2'\n"
        "[[channels]]\npattern = 'd'\n"
        "[[feeds]]\ntype = 'x.*'\nwhen = 'data.y'\nchannels = [\"'c'\"]\n"
    )
    found = summary(*load_checked(tmp_path, {}))
    assert json.loads(json.dumps(found)) == found
    assert found == {
        "file": str(tmp_path / "gateway.toml"),
        "broker": f"embedded, in {tmp_path / '.gateway'}",
        "namespace": "shop",
        "server": "http://127.0.0.1:99",
        "console": True,
        "demo": False,
        "auth": {"anonymous": True, "jwt": [], "introspection": None, "api_keys": None},
        "admin": False,
        "handlers": ["json"],
        "concurrency": 64,
        "commands": [
            {
                "path": "/a",
                "type": "a",
                "stream": "s",
                "routes": [{"when": "data.x", "stream": "t"}],
                "key": "data.k",
                "schema": str(tmp_path / "a.json"),
                "allow": "data.k == 'x'",
            }
        ],
        "streams": ["s", "t"],
        "partitions": 16,
        "channels": [
            {
                "pattern": "c",
                "history": {"size": 5, "seconds": 60.0},
                "subscribe": "true",
                "publish": "1 == 2",
                "read": "false",
            },
            {"pattern": "d", "history": None, **NO_RULES},
            {"pattern": "commands:{id}", "history": {"size": 20, "seconds": 3600.0}, **NO_RULES},
        ],
        "feeds": [{"type": "x.*", "when": "data.y", "channels": ["'c'"]}],
        "events": "nobody may publish",
        "limits": [],
        "quotas": {},
        "requests_per_ip": "200/s",
        "trusted_proxies": [],
    }


def test_a_url_that_no_client_could_use_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").write_text("[broker]\nurl = 'redis+sentinel://:hunter2@db'\n")
    with pytest.raises(ConfigError) as caught:
        load_checked(tmp_path, {})
    (problem,) = caught.value.problems
    assert problem.line == 2
    assert problem.message.startswith("broker.url: expected redis://")
    assert "names no master: write redis+sentinel://" in problem.message
    assert "hunter2" not in problem.message


def test_a_summary_names_sentinels_and_their_master(tmp_path: Path) -> None:
    url = "redis+sentinel://me:hunter2@a:1,b:2/mymaster?sentinel_password=hunter2"
    (tmp_path / "gateway.toml").write_text(f"[broker]\nurl = '{url}'\n")
    assert summary(*load_checked(tmp_path, {}))["broker"] == "redis+sentinel://a:1,b:2/mymaster"


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ("tokens = ['hunter2-hunter2-hunter2']", "producers with the token may publish"),
        (
            "tokens = ['hunter2-hunter2-hunter2', 'hunter3-hunter3-hunter3']",
            "producers with one of 2 tokens may publish",
        ),
        ("anonymous = true", "anybody may publish"),
    ],
)
def test_a_summary_tells_no_secret(tmp_path: Path, events: str, expected: str) -> None:
    (tmp_path / "gateway.toml").write_text(
        f"[broker]\nurl = 'rediss://me:hunter2@db:6380/1?ssl_keyfile=hunter2'\n[events]\n{events}\n"
    )
    found = summary(*load_checked(tmp_path, {}))
    assert found["broker"] == "rediss://db:6380/1"
    assert found["events"] == expected
    assert "hunter" not in json.dumps(found)


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ("", "whoever a channel's rule lets may publish"),
        (
            "[events]\ntokens = ['0123456789abcdef']",
            "producers with the token and whoever a channel's rule lets may publish",
        ),
    ],
)
def test_who_may_publish_by_a_rule_is_told(tmp_path: Path, events: str, expected: str) -> None:
    (tmp_path / "gateway.toml").write_text(f"{SECURED}{events}\n")
    assert summary(*load_checked(tmp_path, {}))["events"] == expected
