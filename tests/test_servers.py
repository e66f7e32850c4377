"""What the tests themselves need of their servers: that nothing is left behind."""

import subprocess
import sys
from pathlib import Path

from tests.servers import clear_away, short_directory

RUN = """
import sys
from tests.servers import short_directory

with short_directory() as directory:
    print(directory, flush=True)
    sys.stdin.read()
"""


def test_directories_of_a_run_that_was_killed_are_removed_by_the_next() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", RUN],
        cwd=Path(__file__).parents[1],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as run:
        assert run.stdout
        left = Path(run.stdout.readline().strip())
        assert left.is_dir()
        clear_away()
        assert left.is_dir()
        run.kill()
    with short_directory() as ours:
        clear_away()
        assert not left.exists()
        assert ours.is_dir()
