"""From a position to the present, whatever happens in between."""

import asyncio

import pytest

from gateway.broker.eventlog import PAGE_BYTES
from gateway.channels import EARLIEST, EntryId
from gateway.errors import CloseCode
from gateway.hub.hub import Hub
from gateway.hub.resumption import TOGETHER
from tests.hub.peers import Log, Peer, heard_by, turns


async def test_the_past_and_what_came_meanwhile_join_up(hub: Hub, log: Log) -> None:
    past = log.append("a", "b", "a", "a")
    hub.dispatch(past)
    log.allowed.clear()
    peer = Peer(hub)
    peer.subscribe("a", after=1)
    await turns()
    meanwhile = log.append("a", "b", "a")
    hub.dispatch(meanwhile)
    assert peer.heard == []
    log.allowed.set()
    await turns()
    live = log.append("a")
    hub.dispatch(live)
    assert peer.heard == ["a:1", *heard_by([*past[1:], *meanwhile, *live], "a")]


async def test_what_was_read_and_was_held_comes_once(hub: Hub, log: Log) -> None:
    peer = Peer(hub)
    log.append("a", "a")  # in the log, but not yet dispatched
    peer.subscribe("a", after=EARLIEST)
    await turns()
    assert peer.heard == ["a:0"]  # the history is read, but the hub does not stand there yet
    hub.dispatch(log.entries)
    await turns()
    assert peer.heard == ["a:0", "a1@1", "a2@2"]


async def test_who_comes_from_a_process_that_was_ahead_hears_nothing_twice(
    hub: Hub, log: Log
) -> None:
    log.append("a", "b", "a", "a")
    peer = Peer(hub)
    peer.subscribe("a", after=3)  # the hub stands at 0
    await turns()
    hub.dispatch(log.entries[:2])
    hub.dispatch(log.entries[2:])
    await turns()
    assert peer.heard == ["a:3", "a4@4"]


async def test_of_many_channels_no_more_is_read_ahead_than_of_a_few(hub: Hub, log: Log) -> None:
    names = [f"c{number}" for number in range(100)]
    past = log.append(*names, *names)
    hub.dispatch(past)
    log.page = 1
    peers = [Peer(hub), Peer(hub)]
    peers[0].subscribe(*names, after=EARLIEST)
    await turns(2000)
    assert peers[0].heard[-200:] == heard_by(past, *names)
    assert len(log.enough) >= 200  # each of them is read on alone, and not for more then
    assert set(log.enough) == {TOGETHER // 100}
    peers[1].subscribe(*names[:2], after=EARLIEST)
    await turns()
    assert log.enough[-1] == PAGE_BYTES


async def test_portions_of_several_channels_come_in_the_order_of_the_log(
    hub: Hub, log: Log
) -> None:
    log.page = 3
    hub.dispatch(log.append(*"aabacabbbcaaaabbac"))
    peer = Peer(hub)
    peer.subscribe("a", "b", "c", after=2)
    meanwhile = log.append("b", "a")
    hub.dispatch(meanwhile)
    await turns(200)
    assert peer.heard == ["a:2", "b:2", "c:2", *heard_by(log.entries[2:], *"abc")]
    readings = [channel for channel, _ in log.readings]
    assert readings.count("c") == 1  # what was read to its end is not read again


async def test_a_channel_that_is_trimmed_does_not_break_another(hub: Hub, log: Log) -> None:
    log.page = 2
    hub.dispatch(log.append(*"aaaaaabbb"))
    log.trim("b", 8)
    peer = Peer(hub)
    peer.subscribe("a", "b", after=0)
    await turns(200)
    assert peer.heard == ["a:0", "b:8!", *heard_by(log.entries[:6] + log.entries[8:], *"ab")]
    assert peer.goodbyes == []


async def test_who_is_trimmed_away_while_catching_up_has_to_come_back(hub: Hub, log: Log) -> None:
    log.page = 2
    hub.dispatch(log.append(*"aaaaaa"))
    peer = Peer(hub)
    peer.reads.clear()
    peer.subscribe("a", after=0)
    await turns()
    assert peer.heard == ["a:0", "a1@1", "a2@2"]  # the next portion waits until this was taken
    log.trim("a", 4)
    peer.reads.set()
    await turns()
    assert peer.goodbyes == [CloseCode.POSITION_LOST]
    assert peer.heard == ["a:0", "a1@1", "a2@2"]


async def test_requests_are_answered_in_order_and_join_up(hub: Hub, log: Log) -> None:
    hub.dispatch(log.append(*"abcab"))
    log.allowed.clear()
    peer = Peer(hub)
    peer.subscribe("a", after=0, id="1")
    await turns()
    peer.subscribe("b", after=2, id="2")
    peer.subscribe("c", id="3")
    meanwhile = log.append(*"cba")
    hub.dispatch(meanwhile)
    log.allowed.set()
    await turns(100)
    assert [word for word in peer.heard if ":" in word] == ["1a:0", "2b:2", "3c:5"]
    events = [word for word in peer.heard if "@" in word]
    assert sorted(events) == sorted(["a1@1", "a4@4", "b5@5", "c6@6", "b7@7", "a8@8"])
    assert events.index("a4@4") < events.index("a8@8")
    assert events.index("b5@5") < events.index("b7@7")


async def test_a_subscription_ends_in_the_middle_of_its_replay(hub: Hub, log: Log) -> None:
    log.page = 2
    hub.dispatch(log.append(*"aabbaabbaa"))
    peer = Peer(hub)
    peer.reads.clear()
    peer.subscribe("a", "b", after=0)
    await turns()
    begun = list(peer.heard)
    assert hub.unsubscribe(peer, "a")
    hub.answer(peer, b"bye:a ")
    hub.dispatch(log.append(*"ab"))
    peer.reads.set()
    await turns(100)
    rest = [word for word in heard_by(log.entries, "b") if word not in begun]
    assert peer.heard == [*begun, "bye:a", *rest]


async def test_unsubscribed_before_the_answer_is_answered_behind_it(hub: Hub, log: Log) -> None:
    hub.dispatch(log.append(*"aab"))
    log.allowed.clear()
    peer = Peer(hub)
    peer.subscribe("a", after=0, id="1")
    await turns()
    hub.unsubscribe(peer, "a")
    hub.answer(peer, b"2bye ")
    peer.subscribe("a", after=1, id="3")
    hub.unsubscribe(peer, "a")
    hub.answer(peer, b"4bye ")
    peer.subscribe("a", after=1, id="5")
    hub.dispatch(log.append("a"))
    log.allowed.set()
    await turns(100)
    assert peer.heard == ["1a:0", "2bye", "3a:1", "4bye", "5a:1", "a2@2", "a4@4"]


async def test_what_is_live_is_held_while_another_channel_catches_up(hub: Hub, log: Log) -> None:
    hub.dispatch(log.append(*"ab"))
    peer = Peer(hub)
    peer.subscribe("a")
    log.allowed.clear()
    peer.subscribe("b", after=0)
    await turns()
    hub.dispatch(log.append(*"ab"))
    assert peer.heard == ["a:2"]
    log.allowed.set()
    await turns()
    hub.dispatch(log.append("a"))
    assert peer.heard == ["a:2", "b:0", "b2@2", "a3@3", "b4@4", "a5@5"]


async def test_a_log_that_is_away_refuses_and_the_connection_lives_on(hub: Hub, log: Log) -> None:
    peer = Peer(hub)
    peer.subscribe("a")
    log.away = True
    peer.subscribe("b", after=0, id="2")
    peer.subscribe("c", id="3")
    await turns()
    assert peer.heard == ["a:0", "2refused:broker-unavailable", "3refused:broker-unavailable"]
    log.away = False
    hub.dispatch(log.append(*"abc"))
    assert peer.heard[3:] == ["a1@1"]
    peer.subscribe("b", after=0)
    await turns()
    assert peer.heard[4:] == ["b:0", "b2@2"]


async def test_a_log_that_goes_away_in_the_middle_sends_the_connection_back(
    hub: Hub, log: Log
) -> None:
    log.page = 1
    hub.dispatch(log.append(*"aaa"))
    peer = Peer(hub)
    peer.reads.clear()
    peer.subscribe("a", after=0)
    await turns()
    log.away = True
    peer.reads.set()
    await turns()
    assert peer.heard == ["a:0", "a1@1"]
    assert peer.goodbyes == [CloseCode.POSITION_LOST]


async def test_a_log_that_is_replaced_in_the_middle_sends_the_connection_back(
    hub: Hub, log: Log
) -> None:
    log.append("a")
    peer = Peer(hub)
    peer.subscribe("a", after=0)
    await turns()
    hub.begin("f", EntryId(1, 0))
    await turns()
    assert peer.heard == ["a:0"]
    assert peer.goodbyes == [CloseCode.POSITION_LOST]


async def test_who_goes_away_in_the_middle_gets_nothing_more(hub: Hub, log: Log) -> None:
    hub.dispatch(log.append("a"))
    log.allowed.clear()
    peer = Peer(hub)
    peer.subscribe("a", after=0)
    await turns()
    peer.leave()
    log.allowed.set()
    await turns()
    assert peer.heard == []
    assert peer.audiences == ()


async def test_who_cannot_take_what_comes_while_catching_up_is_slow(hub: Hub, log: Log) -> None:
    log.allowed.clear()
    peer = Peer(hub)
    peer.subscribe("a", after=0)
    await turns()
    hub.dispatch(log.append(*"a" * 30))
    assert peer.goodbyes == []
    hub.dispatch(log.append(*"a" * 30))
    assert peer.goodbyes == [CloseCode.SLOW_CONSUMER]


async def test_who_catches_up_may_have_more_unsent_than_others(hub: Hub, log: Log) -> None:
    hub.dispatch(log.append("a"))
    peer = Peer(hub)
    peer.reads.clear()
    peer.subscribe("a", after=0)
    await turns()
    peer.pending = 10_000
    hub.slow.add(peer)
    hub.dispatch(log.append("a"))
    assert peer.goodbyes == []
    peer.reads.set()
    await turns()
    assert peer.heard == ["a:0", "a1@1", "a2@2"]
    hub.dispatch(log.append("a"))
    assert peer.goodbyes == [CloseCode.SLOW_CONSUMER]


async def test_a_thousand_who_come_back_to_the_same_place_share_one_read(
    hub: Hub, log: Log
) -> None:
    hub.dispatch(log.append(*"abab"))
    peers = [Peer(hub) for _ in range(1000)]
    for peer in peers:
        peer.subscribe("a", after=1)
    await turns()
    assert len(log.readings) == 1
    assert {tuple(peer.heard) for peer in peers} == {("a:1", "a3@3")}


async def test_a_read_that_began_before_the_subscription_is_not_trusted(hub: Hub, log: Log) -> None:
    log.allowed.clear()
    early, late = Peer(hub), Peer(hub)
    early.subscribe("a", after=0)
    await turns()  # its read sees an empty log
    hub.dispatch(log.append("a"))
    late.subscribe("a", after=0)  # too late to have that event held
    log.allowed.set()
    await turns()
    assert early.heard == late.heard == ["a:0", "a1@1"]
    assert len(log.readings) == 2


async def test_a_log_that_lost_its_end_is_not_read_again_and_again(hub: Hub, log: Log) -> None:
    hub.dispatch(log.append(*"aaa"))
    log.forget(2)
    peer = Peer(hub)
    peer.subscribe("a", after=0)
    await turns(100)
    assert len(log.readings) <= 2
    assert peer.heard[0] == "a:0"


@pytest.mark.parametrize("failing", [1, 2])
async def test_a_reader_that_fails_does_not_spoil_the_next(
    hub: Hub, log: Log, failing: int
) -> None:
    hub.dispatch(log.append("a"))
    log.away = True
    for _ in range(failing):
        Peer(hub).subscribe("a", after=0)
    await turns()
    log.away = False
    peer = Peer(hub)
    peer.subscribe("a", after=0)
    await turns()
    assert peer.heard == ["a:0", "a1@1"]
    assert len(log.readings) == 2


async def test_a_bug_in_a_resumption_is_told_and_ends_the_connection(
    hub: Hub, log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    hub.dispatch(log.append("a"))
    peer = Peer(hub)

    async def broken() -> None:
        raise ZeroDivisionError

    peer.drained = broken  # type: ignore[method-assign]
    peer.subscribe("a", after=0)
    await turns()
    assert "a resumption failed" in caplog.text
    assert peer.goodbyes == [CloseCode.POSITION_LOST]
    await asyncio.sleep(0)
