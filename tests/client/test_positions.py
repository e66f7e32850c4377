"""Where a reader stands: no event twice, none lost, however often the connection breaks."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.client.frames import Received, Standing, Subscribed
from gateway.client.positions import Positions
from gateway.errors import BadRequest

CHANNELS = ("a", "b", "c")


def received(channel: str, position: str) -> Received:
    return Received(json.dumps({"channel": channel}).encode(), position)


def subscribed(positions: Positions, *channels: str, at: str = "e-1-0") -> None:
    for channel in channels:
        positions.subscribed(Subscribed(channel, at, recovered=True))


def test_without_a_position_channels_start_live() -> None:
    positions = Positions(["a", "b"])
    assert positions.each() == {"a": None, "b": None}
    assert positions.oldest() is None
    assert positions.known() == {}


def test_one_position_is_for_all_and_a_mapping_for_each() -> None:
    assert Positions(["a", "b"], "e-5-0").each() == {"a": "e-5-0", "b": "e-5-0"}
    assert Positions(["a", "b"], {"b": "earliest"}).each() == {"a": None, "b": "earliest"}


def test_a_channel_given_twice_is_followed_once() -> None:
    assert Positions(["a", "b", "a"]).channels == ["a", "b"]


@pytest.mark.parametrize("after", ["", "e-5", "e-5-0-", "E-5-0", "latest", "e-5-\n0"])
def test_what_is_no_position_is_refused(after: str) -> None:
    with pytest.raises(BadRequest, match="expected a position"):
        Positions(["a"], after)


def test_nothing_to_follow_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one channel"):
        Positions([])


def test_a_position_of_a_channel_that_is_not_followed_is_refused() -> None:
    with pytest.raises(ValueError, match="for b, which is not followed"):
        Positions(["a"], {"b": "e-1-0"})


def test_a_position_only_moves_forward() -> None:
    positions = Positions(["a"], "e-5-1")
    assert not positions.received(received("a", "e-5-1"))
    assert not positions.received(received("a", "e-4-9"))
    assert positions.received(received("a", "e-5-2"))
    assert positions.received(received("a", "e-10-0"))
    assert positions.known() == {"a": "e-10-0"}


def test_an_event_of_one_channel_says_nothing_about_another() -> None:
    positions = Positions(["a", "b"], "e-1-0")
    subscribed(positions, "a", "b")
    positions.received(received("a", "e-9-0"))
    assert positions.received(received("b", "e-2-0"))


def test_an_event_of_a_channel_that_is_not_followed_is_none_of_ours() -> None:
    assert not Positions(["a"]).received(received("b", "e-2-0"))


def test_a_heartbeat_moves_only_what_is_subscribed() -> None:
    positions = Positions(["a", "b"], "e-1-0")
    positions.each()
    subscribed(positions, "a")
    positions.standing(Standing("e-9-0"))
    assert positions.known() == {"a": "e-9-0", "b": "e-1-0"}


def test_a_new_connection_has_subscribed_nothing_yet() -> None:
    positions = Positions(["a"], "e-1-0")
    subscribed(positions, "a")
    positions.each()
    positions.standing(Standing("e-9-0"))
    assert positions.known() == {"a": "e-1-0"}


def test_below_the_floor_the_position_stays_and_what_is_kept_is_shown() -> None:
    positions = Positions(["a"], "e-5-0")
    positions.each()
    positions.subscribed(Subscribed("a", "e-5-0", recovered=False))
    assert positions.received(received("a", "e-8-0"))


def test_a_position_beyond_the_end_of_the_log_is_given_up() -> None:
    positions = Positions(["a"], "e-50-0")
    positions.each()
    positions.subscribed(Subscribed("a", "e-0-0", recovered=False))
    assert positions.received(received("a", "e-8-0"))


def test_a_position_of_another_epoch_is_given_up() -> None:
    positions = Positions(["a", "b"], "e-50-0")
    positions.oldest()
    for channel in ("a", "b"):
        positions.subscribed(Subscribed(channel, "f-0-0", recovered=False))
    assert positions.known() == {"a": "f-0-0", "b": "f-0-0"}


def test_one_position_for_all_is_the_oldest_and_what_is_newer_is_not_shown_again() -> None:
    positions = Positions(["a", "b"], {"a": "e-9-0", "b": "e-10-0"})
    assert positions.oldest() == "e-9-0"
    for channel in ("a", "b"):
        positions.subscribed(Subscribed(channel, "e-9-0", recovered=False))
    assert not positions.received(received("b", "e-10-0"))
    assert positions.received(received("b", "e-11-0"))


def test_the_earliest_is_older_than_any_position() -> None:
    positions = Positions(["a", "b"], {"a": "e-9-0", "b": "earliest"})
    assert positions.oldest() == "earliest"


def test_one_position_cannot_say_that_another_channel_starts_live() -> None:
    with pytest.raises(ValueError, match="one position covers all"):
        Positions(["a", "b"], {"a": "e-9-0"}).oldest()


@given(
    log=st.lists(st.sampled_from(CHANNELS), max_size=30),
    cuts=st.lists(st.integers(0, 12), max_size=12),
    one_position=st.booleans(),
    data=st.data(),
)
def test_every_event_is_shown_exactly_once_whenever_the_connection_breaks(
    log: list[str], cuts: list[int], *, one_position: bool, data: st.DataObject
) -> None:
    """Each connection replays what the channels lack, with repetitions, up to where it is cut."""
    positions = Positions(CHANNELS, "earliest")
    shown: list[int] = []
    for cut in [*cuts, None]:
        asked = dict.fromkeys(CHANNELS, positions.oldest()) if one_position else positions.each()
        starts = {
            c: 0 if at == "earliest" else int(str(at).split("-")[1]) for c, at in asked.items()
        }
        for channel, start in starts.items():
            positions.subscribed(Subscribed(channel, f"e-{start}-0", recovered=True))
        frames = [(n, c) for n, c in enumerate(log, 1) if n > starts[c]]
        repeated = data.draw(st.integers(0, len(frames)))
        for number, channel in [*frames[:repeated], *frames][:cut]:
            if positions.received(received(channel, f"e-{number}-0")):
                shown.append(number)
    assert sorted(shown) == list(range(1, len(log) + 1))
    for channel in CHANNELS:
        numbers = [number for number in shown if log[number - 1] == channel]
        assert numbers == sorted(numbers)
