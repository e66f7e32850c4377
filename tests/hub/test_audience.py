"""Who hears a channel, what is held for them, and how a batch is written."""

from gateway.broker.eventlog import Entry
from gateway.events import Retention
from gateway.hub.audience import Audience, Batch, Held
from gateway.hub.history import History
from gateway.hub.hub import Hub
from tests.hub.peers import EPOCH, Lines, Log, Peer, heard_by


def a_hub(log: Log) -> Hub:
    return Hub(History(log, lambda channel: Retention(1)), write_buffer=1000)  # type: ignore[arg-type]


def test_what_is_held_comes_back_once_and_in_order() -> None:
    entries = Log().append("a", "b", "a")
    held = Held(limit=100)
    assert held.add(entries[:2])
    assert held.add(entries[2:])
    assert held.take() == entries
    assert held.take() == []


def test_more_than_the_limit_is_too_much_until_it_is_taken() -> None:
    entry = Entry(b"1-0", b"a", b"x" * 60, 1)
    held = Held(limit=100)
    assert held.add([entry])
    assert not held.add([entry])
    held.take()
    assert held.add([entry])


def test_what_is_dropped_counts_no_more() -> None:
    wanted, unwanted = Entry(b"1-0", b"a", b"x" * 60, 1), Entry(b"2-0", b"b", b"x" * 60, 2)
    held = Held(limit=100)
    assert not held.add([wanted, unwanted])
    held.drop(lambda entry: entry.channel == b"b")
    assert held.add([])
    assert held.take() == [wanted]


async def test_a_connection_is_in_one_place_of_an_audience() -> None:
    hub = a_hub(Log())
    audience, peer, held = Audience(b"a"), Peer(hub), Held(100)
    audience.go_live(peer)
    audience.hold(peer, held)
    assert len(audience) == 1
    assert audience.live == {}
    audience.go_live(peer)
    assert len(audience) == 1
    assert audience.held == {}
    audience.leave(peer)
    audience.leave(peer)
    assert len(audience) == 0
    assert audience.live == {}


async def test_a_batch_is_one_write_for_each_connection() -> None:
    log = Log()
    hub = a_hub(log)
    both, only_a, only_b, nothing = Peer(hub), Peer(hub), Peer(hub), Peer(hub)
    a, b, c = (Audience(name) for name in (b"a", b"b", b"c"))
    for audience, peers in ((a, (both, only_a)), (b, (both, only_b)), (c, (nothing,))):
        for peer in peers:
            audience.go_live(peer)
    entries = log.append("a", "b", "b", "a", "b")
    batch = Batch(EPOCH.encode())
    batch.publish({b: [entries[1], entries[2], entries[4]], a: [entries[0], entries[3]]})
    for peer, channels in ((both, "ab"), (only_a, "a"), (only_b, "b"), (nothing, "")):
        assert peer.heard == heard_by(entries, *channels)
        assert len(peer.written) == bool(channels)


async def test_an_event_is_encoded_once_for_each_kind_of_wire() -> None:
    log = Log()
    hub = a_hub(log)
    one, other = Lines("one:"), Lines("other:")
    peers = [Peer(hub, encoding) for encoding in (one, other, one, one, other)]
    a, b = Audience(b"a"), Audience(b"b")
    for peer in peers:
        a.go_live(peer)
    for peer in peers[:3]:
        b.go_live(peer)
    entries = log.append("a", "b", "a")
    batch = Batch(EPOCH.encode())
    batch.publish({a: [entries[0], entries[2]], b: [entries[1]]})
    assert set(one.encoded.values()) == set(other.encoded.values()) == {1}
    assert peers[0].written == peers[2].written
    assert peers[0].written[0] is peers[2].written[0]  # one string of bytes for all of them
    assert peers[0].heard == ["one:a1@1", "one:b2@2", "one:a3@3"]
    assert peers[4].heard == ["other:a1@1", "other:a3@3"]


async def test_a_batch_tells_for_whom_too_much_is_held() -> None:
    log = Log()
    hub = a_hub(log)
    patient, hasty = Peer(hub), Peer(hub)
    audience = Audience(b"a")
    audience.hold(patient, Held(limit=100))
    audience.hold(hasty, Held(limit=1))
    batch = Batch(EPOCH.encode())
    batch.publish({audience: log.append("a")})
    assert batch.overflowed == [hasty]
    assert patient.heard == hasty.heard == []
