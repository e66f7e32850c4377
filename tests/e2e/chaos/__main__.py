"""Long runs with faults of all kinds, one after the other, and a table of what they came to."""

import argparse
import asyncio
import random
import sys
import time
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from tests.e2e.chaos.checker import check
from tests.e2e.chaos.runs import BINARIES, run
from tests.e2e.chaos.setups import Setup, drawn
from tests.e2e.chaos.summary import Row, markdown, row

SECONDS = 20.0
"""In which the faults of one run begin."""
BEGIN, END = "<!-- what the last runs came to -->\n", "<!-- the end of it -->\n"
"""Between these lines of the document the table is replaced."""

console = Console(highlight=False, soft_wrap=True)


def main() -> int:
    options = _options()
    _check_servers()
    seed = random.SystemRandom().randrange(10_000) if options.seed is None else options.seed
    deadline = time.monotonic() + 60 * options.minutes
    rows: list[Row] = []
    while time.monotonic() < deadline and len(rows) != options.rounds:
        setup = drawn(seed + len(rows), SECONDS)
        rows.append(_round(setup, verbose=options.verbose))
    table = markdown(rows)
    console.print(table, markup=False)
    if options.write and options.rounds is None:
        _replace_table(options.write, table)
    return 1 if any(each.wrong for each in rows) else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, help="of the first run; each further one has the next")
    parser.add_argument("--minutes", type=float, default=10, help="in which runs begin")
    parser.add_argument("--rounds", type=int, help="so many runs, and nothing is written")
    parser.add_argument("--write", type=Path, help="a document whose table is replaced")
    parser.add_argument("--verbose", action="store_true", help="say what goes wrong, and when")
    return parser.parse_args()


def _check_servers() -> None:
    """Exit with a sentence where a log server is missing."""
    for binary in BINARIES.values():
        try:
            binary()
        except pytest.skip.Exception as missing:
            raise SystemExit(str(missing)) from missing


def _round(setup: Setup, *, verbose: bool) -> Row:
    """Do one run and say what came of it."""
    began = time.monotonic()
    history = asyncio.run(run(setup, say=console.print if verbose else _be_silent))
    wrong = check(history)
    came = row(setup, history, wrong)
    seconds = time.monotonic() - began
    console.print(
        f"seed {setup.seed} ({setup}): {came.faults} faults, {came.accepted} commands, "
        f"{came.deliveries} deliveries, at rest after {came.rest}, {seconds:.0f} s in all",
        style="red" if wrong else None,
    )
    if wrong:
        file = Path(f"chaos-{setup.seed}.json")
        file.write_bytes(msgspec.json.encode(history))
        for sentence in wrong[:20]:
            console.print(f"  {sentence}", markup=False)
        console.print(f"  {len(wrong)} things are wrong; all that was seen is in {file}")
    return came


def _be_silent(text: str) -> None:
    pass


def _replace_table(document: Path, table: str) -> None:
    before, _, rest = document.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    document.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}")


if __name__ == "__main__":
    sys.exit(main())
