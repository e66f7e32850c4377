"""The promises under faults of all kinds: short runs with fixed seeds. `make chaos` does more."""

import sys

import pytest

from tests.e2e.chaos.checker import check
from tests.e2e.chaos.history import History
from tests.e2e.chaos.runs import run
from tests.e2e.chaos.schedule import Kind
from tests.e2e.chaos.setups import Drama, Log, Setup

SETUPS = [
    Setup(seed=5, seconds=8, log=Log.VALKEY, fsync="always"),
    Setup(seed=20, seconds=8, log=Log.REDIS_7, fsync="no", workers=2),
    Setup(seed=3, seconds=6, log=Log.EMBEDDED, workers=2),
    Setup(seed=4, seconds=6, log=Log.VALKEY, drama=Drama.EMPTIED, workers=2),
    Setup(seed=6, seconds=6, log=Log.REDIS_8, drama=Drama.SET_BACK, workers=2),
]


def test_every_kind_of_fault_is_there() -> None:
    assert {fault.kind for setup in SETUPS[:2] for fault in setup.faults} == set(Kind)


@pytest.mark.skipif(sys.platform != "linux", reason="limits other processes, and reads /proc")
@pytest.mark.parametrize("setup", SETUPS, ids=lambda setup: f"{setup}, seed {setup.seed}")
async def test_the_promises_are_kept(setup: Setup) -> None:
    history = await run(setup, say=print)
    wrong = check(history)
    assert not wrong, report(history, wrong)
    assert any(sent.answers for sent in history.sent)
    assert any(diary.connections for diary in history.diaries)


def report(history: History, wrong: list[str]) -> str:
    """Return what is wrong, and the last words of the processes."""
    said = [f"{watch.name}: {line}" for watch in history.watches for line in watch.said[-20:]]
    return "\n".join([*wrong[:20], f"{len(wrong)} things are wrong", "", *said])
