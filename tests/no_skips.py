"""A pytest plugin for CI (`pytest -p tests.no_skips`): a skipped test is a failed test.

On a developer's machine a test may skip because there is no browser or no Redis. Where everything
is installed, the same skip would hide that the test never ran.
"""

from collections.abc import Generator

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _refuse_skip(report)
    return report


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    # An expected failure is reported as a skip too; `wasxfail` tells it apart.
    if report.skipped and not hasattr(report, "wasxfail"):
        # A skip is reported as (file, line, reason).
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{reason}\nNothing may be skipped here."
