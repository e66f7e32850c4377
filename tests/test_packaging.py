"""Wheel and sdist: what is in them, and that an installed wheel finds it."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*command: str | Path, cwd: Path, path: Path | None = None) -> str:
    """The output of a Python command that must succeed; `path` comes before installed packages."""
    environment = {"PYTHONPATH": str(path)} if path else {}
    result = subprocess.run(
        [sys.executable, *command],
        cwd=cwd, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def build(target: str, source: Path, directory: Path) -> Path:
    run("-m", "hatchling", "build", "-t", target, "-d", directory, cwd=source)
    (built,) = directory.iterdir()
    return built


@pytest.fixture(scope="session")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("sdist", ROOT, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="session")
def unpacked(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("unpacked")
    subprocess.run(["tar", "-xf", sdist, "-C", directory], check=True)
    (top,) = directory.iterdir()
    return top


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the wheel installed in it; its dependencies come from this interpreter."""
    directory = tmp_path_factory.mktemp("installed")
    run(
        "-m",
        "pip",
        "install",
        "--no-deps",
        "--no-index",
        "--target",
        directory,
        wheel,
        cwd=directory,
    )
    return directory


def files_in(directory: Path) -> set[str]:
    """Paths of the files that belong to the project: not what tools and a run leave behind."""
    left_behind = {"__pycache__", ".gateway"}
    return {
        str(path.relative_to(directory))
        for path in directory.rglob("*")
        if path.is_file() and not left_behind & set(path.parts)
    }


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_wheel_carries_the_package_the_web_pages_and_the_example(wheel: Path) -> None:
    packaged = {name for name in names_in(wheel) if ".dist-info/" not in name}
    expected = {f"gateway/{name}" for name in files_in(ROOT / "gateway")}
    expected |= {f"gateway/_web/{name}" for name in files_in(ROOT / "web")}
    expected |= {f"gateway/_examples/{name}" for name in files_in(ROOT / "examples")}
    assert packaged == expected


def test_the_wheel_carries_every_licence(wheel: Path) -> None:
    licences = {name.partition("/licenses/")[2] for name in names_in(wheel) if "/licenses/" in name}
    vendored = {f"web/{name}" for name in files_in(ROOT / "web") if "LICENSE" in name}
    assert licences == {"LICENSE"} | vendored
    assert len(vendored) == len(list((ROOT / "web" / "vendor").glob("*/*LICENSE*"))) > 0


def test_the_sdist_makes_the_same_wheel(unpacked: Path, wheel: Path, tmp_path: Path) -> None:
    assert names_in(build("wheel", unpacked, tmp_path)) == names_in(wheel)


def test_the_sdist_can_be_set_up_and_tested(unpacked: Path) -> None:
    for name in ["Makefile", ".ci/setup", ".ci/lock/dev.txt", "tests/test_packaging.py", "LICENSE"]:
        assert (unpacked / name).is_file(), name


def test_an_installed_wheel_finds_its_files(installed: Path, tmp_path: Path) -> None:
    code = "from gateway import resources as r; print(r.web_dir(), r.example_config())"
    web, example = map(Path, run("-c", code, cwd=tmp_path, path=installed).split())
    assert web == installed / "gateway" / "_web"
    assert (web / "gateway.js").is_file()
    assert example == installed / "gateway" / "_examples" / "orders" / "gateway.toml"
    assert example.is_file()


def test_an_installed_wheel_has_the_command(installed: Path, tmp_path: Path) -> None:
    output = run(installed / "bin" / "gateway", "--version", cwd=tmp_path, path=installed)
    assert re.search(r"\d+\.\d+\.\d+", output)


def test_a_source_tree_finds_its_files(tmp_path: Path) -> None:
    code = "from gateway import resources as r; print(r.web_dir(), r.example_config())"
    web, example = map(Path, run("-c", code, cwd=tmp_path, path=ROOT).split())
    assert web == ROOT / "web"
    assert example == ROOT / "examples" / "orders" / "gateway.toml"
