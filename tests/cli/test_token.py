"""`gateway token`: keys are made, listed and revoked; what is printed once is nowhere else."""

import json
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.__main__ import main
from gateway.policy.apikeys import KeyRing
from gateway.principals import Principal


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "gateway.toml").write_text('[auth]\napi_keys = "keys.toml"\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> "Run":
    return Run(capsys)


class Run:
    """Runs `gateway token`."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str, code: int = 0) -> tuple[str, str]:
        """Return stdout and stderr."""
        assert main(["token", *arguments]) == code
        out, err = self._capsys.readouterr()
        return out, err


def principal(key: str, path: Path) -> Principal | None:
    return KeyRing.parse(path.read_bytes()).principal(key.strip(), now=0.0)


def test_a_key_is_made_and_let_in(folder: Path, run: Run) -> None:
    key, said = run("create", "billing", "--role", "a", "--role", "b", "--claim", "team=x=y")
    found = principal(key, folder / "keys.toml")
    assert found is not None
    assert (found.id, found.roles, found.claims) == ("billing", ("a", "b"), {"team": "x=y"})
    assert key.strip() not in said + (folder / "keys.toml").read_text()
    assert stat.S_IMODE((folder / "keys.toml").stat().st_mode) == 0o600
    assert main(["check"]) == 0


def test_a_file_keeps_its_mode_and_what_else_is_in_it(folder: Path, run: Run) -> None:
    path = folder / "keys.toml"
    path.write_text("# ours")
    path.chmod(0o640)
    run("create", "a")
    assert path.read_text().startswith("# ours\n\n[[keys]]\n")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert [each.name for each in folder.iterdir() if each.name.startswith(".keys")] == []


def test_a_link_stays_one(folder: Path, run: Run) -> None:
    (folder / "real.toml").write_text("")
    (folder / "keys.toml").symlink_to("real.toml")
    run("create", "a")
    assert (folder / "keys.toml").is_symlink()
    assert "[[keys]]" in (folder / "real.toml").read_text()


def test_a_key_expires(folder: Path, run: Run) -> None:
    run("create", "a", "--expires", "90d")
    (entry,) = KeyRing.parse((folder / "keys.toml").read_bytes()).entries
    assert entry.expires is not None
    left = entry.expires - datetime.now(UTC)
    assert timedelta(days=89, hours=23) < left <= timedelta(days=90)


def test_an_entry_can_be_printed_for_another_file(folder: Path, run: Run) -> None:
    out, _ = run("create", "a", "--print")
    key, _, entry = out.partition("\n\n")
    (folder / "other.toml").write_text(entry)
    assert principal(key, folder / "other.toml")
    assert not (folder / "keys.toml").exists()


def test_keys_are_listed_without_what_they_are(folder: Path, run: Run) -> None:
    key, _ = run("create", "billing", "--role", "a")
    run("create", "old", "--expires", "0s")
    out, _ = run("list")
    assert "billing" in out
    assert "expired" in out
    first, second = map(json.loads, run("list", "--json")[0].splitlines())
    assert (first["id"], first["roles"], first["expires"]) == ("billing", ["a"], None)
    assert first["prefix"] == key.split("_")[1]
    assert second["id"] == "old"
    assert "hash" not in first


def test_a_key_is_revoked_by_prefix_by_id_and_by_itself(folder: Path, run: Run) -> None:
    path = folder / "keys.toml"
    keys = [run("create", name)[0].strip() for name in ("a", "b", "b", "c", "d")]
    prefixes = [key.split("_")[1] for key in keys]
    assert run("revoke", prefixes[0])[0] == f"{prefixes[0]}\n"
    assert run("revoke", "b")[0].split() == sorted(prefixes[1:3])
    assert run("revoke", keys[3])[0] == f"{prefixes[3]}\n"
    assert [each.id for each in KeyRing.parse(path.read_bytes()).entries] == ["d"]


def test_what_is_not_there_cannot_be_revoked(folder: Path, run: Run) -> None:
    key, _ = run("create", "a")
    stranger = key.strip().replace(key.split("_")[1], "0" * 12)
    _, err = run("revoke", "a", stranger, code=1)
    assert "there is no key 'gwk_000000000000_…'" in err
    assert key.strip().split("_")[2] not in err
    assert principal(key, folder / "keys.toml")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["create", ""], "printable characters as ID"),
        (["create", "a\nb"], "printable characters as ID"),
        (["create", "a", "--claim", "x"], "expected NAME=TEXT as --claim"),
        (["create", "a", "--expires", "soon"], "--expires but got 'soon'"),
    ],
)
def test_wrong_usage(folder: Path, run: Run, arguments: list[str], expected: str) -> None:
    _, err = run(*arguments, code=2)
    assert expected in err
    assert not (folder / "keys.toml").exists()


def test_without_a_file_it_says_what_to_do(folder: Path, run: Run) -> None:
    (folder / "gateway.toml").write_text("")
    assert "[auth] api_keys names no file" in run("create", "a", code=2)[1]
    run("create", "a", "--file", "mine.toml")
    assert "[[keys]]" in (folder / "mine.toml").read_text()
    assert "there is no such file" in run("list", "--file", "none.toml", code=1)[1]


def test_a_broken_file_is_left_as_it_is(folder: Path, run: Run) -> None:
    (folder / "keys.toml").write_text("[[keys]]\n")
    assert "line 1: " in run("create", "a", code=1)[1]
    assert "line 1: " in run("list", code=1)[1]
    assert (folder / "keys.toml").read_text() == "[[keys]]\n"
