"""The README: what it says of the configuration is what the code does, and its files work."""

import ast
import re
import sys
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import msgspec
import pytest
from typer.testing import CliRunner

from gateway.__main__ import app
from gateway.config import Config
from gateway.errors import Forbidden, Unauthorized
from gateway.policy import load_checked
from gateway.policy.apikeys import KeyRing
from gateway.principals import ANONYMOUS, AuthType, Caller, Principal
from gateway.settings import Bytes, Frequency, Seconds
from gateway.worker.loading import load as load_handlers

README = (Path(__file__).parents[1] / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def sections() -> Iterator[tuple[str, type[msgspec.Struct]]]:
    """Give each table of the file and its structure: `[broker]`, `[[commands]]`, `[[auth.jwt]]`."""
    for name, structure in tables(Config).items():
        yield name, structure
        if not name.startswith("[["):
            yield from tables(structure, name[1:-1] + ".").items()


def tables(structure: type[msgspec.Struct], prefix: str = "") -> dict[str, type[msgspec.Struct]]:
    """The fields that are tables of their own, as their headings are written."""
    found = {}
    for name, hint in get_type_hints(structure).items():
        (inner, *_) = (each for each in (*get_args(hint), hint) if each is not type(None))
        if _is_struct(inner):
            several = get_origin(hint) not in (None, UnionType)
            found[f"[[{prefix}{name}]]" if several else f"[{prefix}{name}]"] = inner
    return found


def _is_struct(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, msgspec.Struct)


def rows(section: str) -> dict[str, str]:
    """The table below a heading: key → default, as it is printed."""
    _, _, rest = README.partition(f"\n### `{section}`\n")
    table = rest.partition("\n#")[0]
    cells = re.findall(r"^\| `(\w+)` \|(.*?)\|", table, re.MULTILINE)
    return {key: default.strip() for key, default in cells}


def value(text: str, default: object) -> object:
    if text in ("", "required"):
        return text
    if isinstance(default, StrEnum):
        return text[2:-2]
    literal = ast.literal_eval({"true": "True", "false": "False"}.get(text[1:-1], text[1:-1]))
    if isinstance(default, Seconds | Bytes | Frequency):
        return type(default).parse(literal)
    if isinstance(default, Path):
        return Path(literal)
    return tuple(literal) if isinstance(default, tuple) else literal


@pytest.mark.parametrize(("section", "structure"), list(sections()))
def test_every_setting_is_there_with_its_default(
    section: str, structure: type[msgspec.Struct]
) -> None:
    told = rows(section)
    nested = {name.strip("[]") for name in tables(structure)} if "[[" not in section else set()
    fields = [each for each in msgspec.structs.fields(structure) if each.name not in nested]
    assert list(told) == [field.name for field in fields]
    for field in fields:
        if field.required:
            expected: object = "required"
        else:
            expected = "" if field.default is None else field.default
        assert value(told[field.name], field.default) == expected, field.name


def test_the_application_that_it_shows_is_a_whole_one(tmp_path: Path) -> None:
    handlers = next(block for block in blocks("python") if "@handles" in block)
    configuration = next(block for block in blocks("toml") if "[[commands]]" in block)
    (tmp_path / "handlers.py").write_text(handlers)
    (tmp_path / "gateway.toml").write_text(configuration)
    config, policy = load_checked(tmp_path / "gateway.toml", {})
    try:
        loaded = load_handlers(config.worker.handlers, tmp_path)
    finally:
        sys.modules.pop("handlers", None)
    types = [route.type for route in policy.commands]
    assert loaded.missing(types) == []
    assert loaded.idle(types) == []


def test_the_rules_that_it_shows_decide_who_may(tmp_path: Path) -> None:
    (configuration,) = (block for block in blocks("toml") if "[[auth.jwt]]" in block)
    (tmp_path / "gateway.toml").write_text(configuration)
    for line in re.findall(r"^gateway token create (.*?) +#", README, re.MULTILINE):
        arguments = ["token", "create", *line.split(), "--file", str(tmp_path / "api-keys.toml")]
        assert CliRunner().invoke(app, arguments).exit_code == 0
    config, policy = load_checked(tmp_path / "gateway.toml", {})
    (entry,) = KeyRing.parse((tmp_path / "api-keys.toml").read_bytes()).entries
    assert config.auth.api_keys == tmp_path / "api-keys.toml"
    (order,) = policy.commands
    data = {"customer": "c-19"}
    customer = Principal(id="c-19", type=AuthType.USER)
    for allowed in (entry.principal(), customer):
        policy.permissions.check_command(order, Caller(allowed), data, {})
    for refused, reason in (
        (msgspec.structs.replace(customer, id="c-2"), Forbidden),
        (ANONYMOUS, Unauthorized),
    ):
        with pytest.raises(reason):
            policy.permissions.check_command(order, Caller(refused), data, {})


def test_every_python_block_compiles() -> None:
    assert len(blocks("python")) >= 3
    for block in blocks("python"):
        compile(block, "README.md", "exec")


@pytest.mark.parametrize(
    "command", sorted(set(re.findall(r"(?:`|^)gateway ([a-z][a-z-]+)", README, re.MULTILINE)))
)
def test_every_command_that_it_names_exists(command: str) -> None:
    assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0


def test_every_link_to_a_file_leads_somewhere() -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)]+)\)", README)
    assert links
    for link in links:
        assert (Path(__file__).parents[1] / link).exists(), link


def test_every_link_to_a_heading_leads_somewhere() -> None:
    headings = {
        re.sub(r"[^\w\- ]", "", text).strip().lower().replace(" ", "-")
        for text in re.findall(r"^#+ (.*)$", README, re.MULTILINE)
    }
    assert set(re.findall(r"\]\(#([^)]+)\)", README)) <= headings
