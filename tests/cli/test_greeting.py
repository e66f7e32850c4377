"""What a gateway says when it is ready: true addresses, and commands that work when pasted."""

import json
import shlex
from pathlib import Path

import pytest

from gateway.cli.greeting import curls, greeting, title
from gateway.config import AuthConfig, ChannelConfig, CommandConfig, Config
from gateway.policy import load_checked
from gateway.resources import example_config

URL = "http://127.0.0.1:9001"


def commands(config: Config) -> list[list[str]]:
    return [shlex.split(command) for _, command in curls(config, URL)]


def test_the_example_has_three_curls_with_its_own_data() -> None:
    config, _ = load_checked(example_config(), {})
    follow, post, wait = commands(config)
    assert follow == ["curl", "-N", f"{URL}/sse?channel=orders"]
    assert post[:2] == ["curl", f"{URL}/orders"]
    assert json.loads(post[-1]) == {"customer": "c-19", "sku": "tea-250", "qty": 2}
    assert "Prefer: wait=5" in wait


def test_the_addresses_are_those_of_the_server() -> None:
    config, policy = load_checked(example_config(), {})
    text = greeting(config, URL, title(config, policy)).plain
    for address in (f"{URL}/", f"{URL}/demo/", "ws://127.0.0.1:9001/ws", f"{URL}/sse"):
        assert f"  {address}\n" in text


def test_where_callers_are_told_apart_a_token_is_shown(tmp_path: Path) -> None:
    config = Config(
        auth=AuthConfig(api_keys=tmp_path / "keys.toml"),
        commands=[CommandConfig(path="/c", type="t", stream="s")],
        channels=[ChannelConfig(pattern="c")],
    )
    for command in commands(config):
        assert "Authorization: Bearer $TOKEN" in command


def test_parameters_are_filled_with_the_examples_data(tmp_path: Path) -> None:
    schema = tmp_path / "s.json"
    schema.write_text(json.dumps({"examples": [{"customer": "it's é", "n": 1}]}))
    config = Config(
        commands=[CommandConfig(path="/c/{customer}/x/{y}", type="t", stream="s", schema=schema)],
        channels=[ChannelConfig(pattern="c:{customer}")],
    )
    follow, post, _ = commands(config)
    assert follow[-1] == f"{URL}/sse?channel=c%3Ait%27s%20%C3%A9"
    assert post[1] == f"{URL}/c/it%27s%20%C3%A9/x/1"
    assert json.loads(post[-1]) == {"customer": "it's é", "n": 1}


@pytest.mark.parametrize("schema", [None, "true", '{"type": "object"}', '{"examples": []}'])
def test_without_an_example_an_empty_object_is_posted(schema: str | None, tmp_path: Path) -> None:
    file = tmp_path / "s.json"
    file.write_text(schema or "")
    command = CommandConfig(path="/c", type="t", stream="s", schema=file if schema else None)
    post, _ = commands(Config(commands=[command]))
    assert post[-1] == "{}"


def test_without_commands_and_channels_there_is_nothing_to_try() -> None:
    assert commands(Config()) == []
    assert "Try it" not in greeting(Config(), URL, "x").plain


def test_the_title_holds_no_password(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text('[broker]\nurl = "redis://me:hush@example.com"\n')
    config, policy = load_checked(file, {})
    assert title(config, policy).endswith("with its log in redis://example.com")
