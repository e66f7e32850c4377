"""The lock: what set-up installs is what the project asks for, down to the hash of each file."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())


def declared(lock: str) -> list[Requirement]:
    """What `pyproject.toml` asks for, of what this lock must hold."""
    project, groups = PROJECT["project"], PROJECT["dependency-groups"]
    lines = project["dependencies"] + project["optional-dependencies"]["embedded"] + groups["build"]
    if lock == "dev":
        lines += [line for line in groups["dev"] if isinstance(line, str)]
    return [Requirement(line) for line in lines]


def locked(lock: str) -> dict[str, str]:
    lines = (ROOT / ".ci" / "lock" / f"{lock}.txt").read_text().splitlines()
    pins = (re.match(r"([a-z0-9-]+)==([^ ;]+)", line) for line in lines)
    return {pin[1]: pin[2] for pin in pins if pin}


@pytest.mark.parametrize("lock", ["runtime", "dev"])
def test_the_lock_holds_what_the_project_asks_for(lock: str) -> None:
    versions = locked(lock)
    for requirement in declared(lock):
        assert requirement.specifier.contains(versions[requirement.name]), requirement


def test_the_two_locks_agree() -> None:
    assert locked("runtime").items() <= locked("dev").items()


@pytest.mark.parametrize("lock", ["runtime", "dev"])
def test_the_lock_is_bound_to_hashes_and_to_no_index(lock: str) -> None:
    text = (ROOT / ".ci" / "lock" / f"{lock}.txt").read_text()
    entries = re.split(r"\n(?=[a-z0-9])", text)[1:]
    # A package may be there twice: one version for older Pythons, one for newer.
    assert {entry.partition("==")[0] for entry in entries} == locked(lock).keys()
    assert all("--hash=sha256:" in entry for entry in entries)
    assert "://" not in text
    assert "--index" not in text
