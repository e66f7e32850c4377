"""Turns: a few at a time, one address after another, and the longest line loses."""

import asyncio
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.auth.turns import NoTurn, Turns

PATIENCE = 30.0
LOUD, QUIET = "192.0.2.1", "192.0.2.2"


async def settled() -> None:
    """Let those run who were given a turn, or none."""
    for _ in range(3):
        await asyncio.sleep(0)


class Visitors:
    """Those who want a turn, and what became of them."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.served: list[str] = []
        """Names, in the order in which their turns began."""
        self.refused: list[str] = []
        self._leave: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def come(self, name: str, address: str, patience: float = PATIENCE) -> None:
        self._tasks[name] = asyncio.create_task(self._visit(name, address, patience))
        await settled()

    async def _visit(self, name: str, address: str, patience: float) -> None:
        leave = self._leave[name] = asyncio.Event()
        try:
            async with self.turns.turn(address, patience=patience):
                self.served.append(name)
                await leave.wait()
        except NoTurn:
            self.refused.append(name)

    async def end(self, name: str) -> None:
        """Have one who is served go, and the next one begin."""
        self._leave[name].set()
        await self._tasks[name]
        await settled()

    async def cancel(self, name: str) -> None:
        self._tasks[name].cancel()
        with suppress(asyncio.CancelledError):
            await self._tasks[name]
        await settled()

    async def end_all(self) -> None:
        """Have all be served that wait, one after another."""
        for name in self.served:  # which grows meanwhile
            await self.end(name)


@pytest.fixture
def visitors() -> Visitors:
    return Visitors(Turns(1, 4))


async def test_who_asks_for_little_does_not_wait_for_who_asks_for_much(visitors: Visitors) -> None:
    for n in range(4):
        await visitors.come(f"loud {n}", LOUD)
    await visitors.come("quiet", QUIET)
    await visitors.end_all()
    assert visitors.served == ["loud 0", "loud 1", "quiet", "loud 2", "loud 3"]


async def test_the_longest_line_makes_room(visitors: Visitors) -> None:
    for n in range(5):
        await visitors.come(f"loud {n}", LOUD)
    await visitors.come("loud 5", LOUD)
    assert visitors.refused == ["loud 5"]
    await visitors.come("quiet 0", QUIET)
    await visitors.come("quiet 1", QUIET)
    await visitors.come("quiet 2", QUIET)
    await visitors.end_all()
    assert visitors.refused == ["loud 5", "loud 4", "loud 3", "quiet 2"]
    assert visitors.served == ["loud 0", "loud 1", "quiet 0", "loud 2", "quiet 1"]


async def test_all_of_one_site_have_one_line(visitors: Visitors) -> None:
    for n in range(3):
        await visitors.come(f"loud {n}", f"2001:db8:1:{n}::1")
    await visitors.come("quiet", "2001:db8:2::1")
    await visitors.end_all()
    assert visitors.served == ["loud 0", "loud 1", "quiet", "loud 2"]


async def test_patience_ends(visitors: Visitors) -> None:
    await visitors.come("first", LOUD)
    await visitors.come("hasty", LOUD, patience=0.0)
    await visitors.come("second", LOUD)
    await asyncio.sleep(0.01)
    await visitors.end_all()
    assert (visitors.refused, visitors.served) == (["hasty"], ["first", "second"])


async def test_who_goes_away_takes_no_turn(visitors: Visitors) -> None:
    await visitors.come("first", LOUD)
    await visitors.come("gone", LOUD)
    await visitors.come("second", QUIET)
    await visitors.cancel("gone")
    await visitors.end_all()
    assert visitors.served == ["first", "second"]


async def test_a_turn_that_is_given_to_who_just_went_away_is_passed_on(visitors: Visitors) -> None:
    for name in ("first", "gone", "second"):
        await visitors.come(name, LOUD)
    visitors._leave["first"].set()
    visitors._tasks["gone"].cancel()
    await visitors.end("first")
    await visitors.end_all()
    assert visitors.served == ["first", "second"]


@given(
    st.lists(st.tuples(st.sampled_from(["come", "end", "cancel"]), st.integers(0, 3)), max_size=60)
)
def test_no_turn_is_lost_and_none_is_had_twice(deeds: list[tuple[str, int]]) -> None:
    async def live() -> None:
        visitors = Visitors(Turns(2, 5))
        names: list[str] = []
        gone: set[str] = set()

        def inside() -> list[str]:
            return [each for each in visitors.served if each not in gone]

        for count, (deed, whose) in enumerate(deeds):
            if deed == "come":
                names.append(f"{count}")
                await visitors.come(names[-1], f"192.0.2.{whose}")
            elif deed == "end" and inside():
                name = inside()[0]
                gone.add(name)
                await visitors.end(name)
            elif deed == "cancel" and names:
                name = names[whose % len(names)]
                gone.add(name)
                await visitors.cancel(name)
            waiting = [
                each
                for each in names
                if each not in gone and each not in visitors.served + visitors.refused
            ]
            assert len(inside()) <= 2
            assert len(waiting) <= 5
            assert not waiting or len(inside()) == 2
        for name in names:
            await visitors.cancel(name)
        async with visitors.turns.turn("a", patience=0), visitors.turns.turn("b", patience=0):
            pass

    asyncio.run(live())
