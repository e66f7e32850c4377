"""One timer for the ends of all connections."""

import asyncio
import time

import pytest

from gateway.errors import CloseCode
from gateway.hub import expiry as module
from gateway.hub.hub import Hub
from tests.hub.peers import Peer
from tests.servers import eventually


def timers() -> int:
    """How many timers of an expiry wait in the event loop."""
    scheduled = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]
    return sum("Expiry" in repr(each) and not each.cancelled() for each in scheduled)


def end(hub: Hub, peer: Peer, seconds: float, code: CloseCode = CloseCode.TOKEN_EXPIRED) -> None:
    hub.expiry.set(peer, time.time() + seconds, code)


@pytest.fixture
def anyio_backend() -> str:
    """The loop whose timers can be counted."""
    return "asyncio"


async def test_each_is_closed_when_its_time_is_over_and_with_its_code(hub: Hub) -> None:
    late, soon, never = Peer(hub), Peer(hub), Peer(hub)
    end(hub, late, 0.2)
    end(hub, soon, 0.05, CloseCode.UNAUTHORIZED)
    end(hub, never, 600)
    assert timers() == 1
    await eventually(lambda: soon.goodbyes, reason="the first was closed")
    assert late.goodbyes == []
    await eventually(lambda: late.goodbyes, reason="the second was closed")
    assert soon.goodbyes == [CloseCode.UNAUTHORIZED]
    assert late.goodbyes == [CloseCode.TOKEN_EXPIRED]
    assert never.goodbyes == []
    assert len(hub.expiry) == 1


async def test_who_may_stay_for_longer_or_for_ever_does(hub: Hub) -> None:
    longer, always, control = Peer(hub), Peer(hub), Peer(hub)
    for peer in (longer, always, control):
        end(hub, peer, 0.05)
    end(hub, longer, 600)
    hub.expiry.set(always, None, CloseCode.TOKEN_EXPIRED)
    await eventually(lambda: control.goodbyes, reason="the time was over")
    assert longer.goodbyes == always.goodbyes == []


async def test_those_that_are_gone_are_forgotten_long_before_their_end(hub: Hub) -> None:
    staying = Peer(hub)
    end(hub, staying, 600)
    for _ in range(1000):
        peer = Peer(hub)
        end(hub, peer, 3600)
        hub.close(peer)
    assert len(hub.expiry) == 1
    assert len(hub.expiry._heap) <= 2 + module.SLACK
    assert timers() == 1


async def test_a_clock_that_was_set_is_noticed(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONGEST", 0.02)
    peer, now = Peer(hub), time.time()
    end(hub, peer, 600)
    monkeypatch.setattr(time, "time", lambda: now + 700)
    await eventually(lambda: peer.goodbyes, reason="the time was over")
