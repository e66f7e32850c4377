"""The rule of CI that nothing is skipped, tried on a suite of two tests."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

SUITE = """
import pytest

def test_skipped():
    pytest.skip("no browser")

@pytest.mark.xfail(strict=True)
def test_expected_to_fail():
    raise AssertionError
"""

SKIPPED_MODULE = """
import pytest
pytest.importorskip("no_such_module")
"""


def run_pytest(directory: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options],
        cwd=directory,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_developer_may_skip(tmp_path: Path) -> None:
    (tmp_path / "test_suite.py").write_text(SUITE)
    result = run_pytest(tmp_path)
    assert result.returncode == pytest.ExitCode.OK
    assert "1 skipped, 1 xfailed" in result.stdout


in_one_or_several_processes = pytest.mark.parametrize("processes", ["0", "2"])


@in_one_or_several_processes
def test_in_ci_a_skipped_test_fails_with_its_reason(tmp_path: Path, processes: str) -> None:
    (tmp_path / "test_suite.py").write_text(SUITE)
    result = run_pytest(tmp_path, "-p", "tests.no_skips", "-n", processes)
    assert result.returncode == pytest.ExitCode.TESTS_FAILED
    assert "1 failed, 1 xfailed" in result.stdout
    assert "no browser" in result.stdout


@in_one_or_several_processes
def test_in_ci_a_skipped_module_fails_with_its_reason(tmp_path: Path, processes: str) -> None:
    (tmp_path / "test_module.py").write_text(SKIPPED_MODULE)
    result = run_pytest(tmp_path, "-p", "tests.no_skips", "-n", processes)
    assert result.returncode in (pytest.ExitCode.INTERRUPTED, pytest.ExitCode.TESTS_FAILED)
    assert "no_such_module" in result.stdout
