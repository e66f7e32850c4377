"""Subscriptions, heartbeats, goodbyes: what the hub does without ever waiting."""

import asyncio

import pytest

from gateway.channels import EntryId
from gateway.errors import CloseCode
from gateway.hub.hub import SLOTS, Hub
from gateway.principals import UNKNOWN, Caller
from tests.hub.peers import Log, Peer, heard_by, turns


async def test_a_live_subscription_is_answered_and_then_hears(hub: Hub, log: Log) -> None:
    hub.dispatch(log.append("a"))
    peer = Peer(hub)
    peer.subscribe("a", "b")
    entries = log.append("b", "c", "a")
    hub.dispatch(entries)
    assert peer.heard == ["a:1", "b:1", *heard_by(entries, "a", "b")]


async def test_unsubscribed_hears_no_more(hub: Hub, log: Log) -> None:
    peer = Peer(hub)
    peer.subscribe("a", "b")
    assert hub.is_subscribed(peer, "a")
    assert hub.unsubscribe(peer, "a")
    assert not hub.unsubscribe(peer, "a")
    assert not hub.unsubscribe(peer, "never")
    assert not hub.is_subscribed(peer, "a")
    hub.dispatch(log.append("a", "b"))
    assert peer.heard == ["a:0", "b:0", "b2@2"]


async def test_a_closed_connection_is_forgotten(hub: Hub, log: Log) -> None:
    peer, other = Peer(hub), Peer(hub)
    peer.subscribe("a")
    other.subscribe("a")
    hub.slow.add(peer)
    hub.close(peer)
    hub.close(peer)
    hub.dispatch(log.append("a"))
    assert (len(hub), hub.slow, peer.audiences) == (1, set(), ())
    assert peer.heard == ["a:0"]
    assert other.heard == ["a:0", "a1@1"]


async def test_who_is_closed_subscribes_to_nothing(hub: Hub) -> None:
    peer = Peer(hub)
    peer.leave()
    peer.subscribe("a")
    peer.subscribe("a", after=0)
    await turns()
    assert peer.audiences == ()
    assert peer.heard == []


async def test_every_connection_gets_one_heartbeat_in_a_round(hub: Hub, log: Log) -> None:
    peers = [Peer(hub) for _ in range(3 * SLOTS + 1)]
    hub.dispatch(log.append("elsewhere"))
    for slot in range(SLOTS):
        hub.beat(slot)
    assert {tuple(peer.heard) for peer in peers} == {("beat@e-1-0",)}


async def test_who_catches_up_gets_a_heartbeat_without_a_position(hub: Hub, log: Log) -> None:
    log.allowed.clear()
    live, behind = Peer(hub), Peer(hub)
    live.subscribe("a")
    behind.subscribe("a", after=0)
    await turns()
    for slot in range(SLOTS):
        hub.beat(slot)
    assert live.heard[-1] == "beat@e-0-0"
    assert behind.heard == ["beat"]
    log.allowed.set()
    await turns()
    for slot in range(SLOTS):
        hub.beat(slot)
    assert behind.heard == ["beat", "a:0", "beat@e-0-0"]


async def test_who_has_not_said_who_it_is_learns_no_position(hub: Hub) -> None:
    peer, stranger = Peer(hub), Peer(hub)
    stranger.caller = Caller(principal=UNKNOWN)
    for slot in range(SLOTS):
        hub.beat(slot)
    assert peer.heard == ["beat@e-0-0"]
    assert stranger.heard == ["beat"]


async def test_everybody_is_dismissed(hub: Hub) -> None:
    peers = [Peer(hub) for _ in range(40)]
    for peer in peers:
        peer.subscribe("a")
    hub.dismiss(CloseCode.SHUTDOWN, window_ms=1000)
    assert all(peer.goodbyes == [CloseCode.SHUTDOWN] for peer in peers)
    assert len(hub) == 0


async def test_who_comes_after_a_shutdown_is_told_goodbye_as_well(hub: Hub) -> None:
    hub.shut(window_ms=1000)
    late = Peer(hub)
    late.subscribe("a")
    assert late.goodbyes == []
    await asyncio.sleep(0)
    assert (late.heard, late.goodbyes) == (["a:0", "beat@e-0-0"], [CloseCode.SHUTDOWN])
    assert len(hub) == 0


async def test_a_shutdown_tells_everybody_where_they_stand(hub: Hub, log: Log) -> None:
    quiet, stranger = Peer(hub), Peer(hub)
    quiet.subscribe("a")
    stranger.caller = Caller(principal=UNKNOWN)
    hub.dispatch(log.append("b", "b"))
    hub.dismiss(CloseCode.SHUTDOWN, window_ms=0)
    assert quiet.heard == ["a:0", "beat@e-2-0"]
    assert stranger.heard == ["beat"]


async def test_who_is_sent_away_from_a_lost_place_is_told_no_new_one(hub: Hub) -> None:
    peer = Peer(hub)
    peer.subscribe("a")
    hub.begin("f", EntryId(9, 0))
    hub.interrupt(window_ms=0)
    assert peer.heard == ["a:0"]


async def test_who_has_too_much_unsent_is_closed_and_nobody_else(hub: Hub, log: Log) -> None:
    quick, slow, slower = Peer(hub), Peer(hub), Peer(hub)
    for peer in (quick, slow, slower):
        peer.subscribe("a")
    slow.pending, slower.pending = 100, 101
    hub.slow |= {slow, slower}
    hub.dispatch(log.append("a"))
    assert (quick.goodbyes, slow.goodbyes) == ([], [])
    assert slower.goodbyes == [CloseCode.SLOW_CONSUMER]
    hub.dispatch(log.append("a"))
    assert quick.heard == slow.heard == ["a:0", "a1@1", "a2@2"]
    assert slower.heard == ["a:0", "a1@1"]


async def test_an_entry_is_reached_when_it_was_dispatched(hub: Hub, log: Log) -> None:
    waiting = [asyncio.ensure_future(hub.reached(EntryId(number, 0))) for number in (1, 3, 0)]
    await turns()
    assert [each.done() for each in waiting] == [False, False, True]
    hub.dispatch(log.append("a", "a"))
    await turns()
    assert [each.done() for each in waiting] == [True, False, True]
    hub.dispatch(log.append("a"))
    await waiting[1]


async def test_who_waits_for_an_entry_of_a_log_that_was_replaced_does_not_wait_for_ever(
    hub: Hub,
) -> None:
    waiting = asyncio.ensure_future(hub.reached(EntryId(9, 0)))
    await turns()
    hub.begin("f", EntryId(1, 0))
    await waiting
    assert hub.token == "f-1-0"


@pytest.mark.parametrize("count", [1, 5])
async def test_a_batch_for_nobody_moves_the_position(hub: Hub, log: Log, count: int) -> None:
    hub.dispatch(log.append(*[""] * count))
    assert hub.position == EntryId(count, 0)
