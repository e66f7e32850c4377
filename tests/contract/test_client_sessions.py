"""The Python client at a gateway that wants to know who it is."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import pytest

from gateway.client import Backoff, Disconnected, Notice, Refused, subscribe
from gateway.client.frames import NotKnown
from tests.contract.serving import Serving, Transports
from tests.contract.test_sessions import guarded
from tests.identities import Register
from tests.servers import RunningServer, eventually

pytestmark = pytest.mark.anyio

BRIEFLY = 3.0
"""Seconds for which tokens last that are to be renewed."""


@pytest.fixture
def register() -> Register:
    return Register()


@pytest.fixture(params=[False, True], ids=["websocket", "sse"])
def sse(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
async def gateway(
    valkey: RunningServer, transports: Transports, register: Register
) -> AsyncIterator[Serving]:
    async with guarded(valkey, transports, register) as running:
        yield running


class Reader:
    """Follows `own:ann` in a task."""

    def __init__(self, gateway: Serving, token: Any, **options: Any) -> None:
        self.seen: list[object] = []
        self.notices: list[Notice] = []
        self._url = f"http://127.0.0.1:{gateway.port}"
        self._options = {"token": token, "backoff": Backoff(first=0.01), "after": "earliest"}
        self._options |= options
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        events = subscribe(self._url, ["own:ann"], notice=self.notices.append, **self._options)
        async with aclosing(events):
            async for event in events:
                self.seen.append(event.data)

    async def until(self, reached: Callable[[], object], reason: str) -> None:
        await eventually(lambda: self.task.done() or reached(), within=60, reason=reason)
        if self.task.done():
            self.task.result()

    @property
    def interruptions(self) -> list[str]:
        return [each.reason for each in self.notices if isinstance(each, Disconnected)]


async def test_tokens_are_renewed_as_often_as_they_expire_and_no_event_is_lost(
    gateway: Serving, register: Register, sse: bool
) -> None:
    given: list[str] = []

    async def token() -> str:
        given.append(register.issue("ann", lasts=BRIEFLY))
        return given[-1]

    reader = Reader(gateway, token, sse=sse)
    number = 0
    while len(given) < 3:
        await gateway.publish("own:ann", number)
        number += 1
        await reader.until(lambda: len(reader.seen) >= number, "the event came")  # noqa: B023
    assert reader.seen == list(range(number))
    assert bool(reader.interruptions) is sse, "a WebSocket is refreshed in place"
    reader.task.cancel()


async def test_a_token_that_lapsed_meanwhile_is_replaced_once(
    gateway: Serving, register: Register, sse: bool
) -> None:
    tokens = iter([register.issue("ann", lasts=-1), register.issue("ann")])
    reader = Reader(gateway, lambda: next(tokens), sse=sse)
    await gateway.publish("own:ann", 1)
    await reader.until(lambda: reader.seen, "it was let in with the second token")
    assert len(reader.interruptions) == 1
    reader.task.cancel()


@pytest.mark.parametrize("token", ["made-up", lambda: "made-up"], ids=["fixed", "function"])
async def test_a_token_that_is_no_good_ends_it(gateway: Serving, sse: bool, token: Any) -> None:
    reader = Reader(gateway, token, sse=sse)
    with pytest.raises(NotKnown):
        await reader.until(lambda: False, "it was refused")
    assert "made-up" not in str(reader.task.exception())


async def test_while_no_token_can_be_had_it_tries_again(
    gateway: Serving, register: Register, sse: bool
) -> None:
    tokens = iter(["", register.issue("ann")])

    def token() -> str:
        if found := next(tokens):
            return found
        raise OSError("the login is away")

    reader = Reader(gateway, token, sse=sse)
    await gateway.publish("own:ann", 1)
    await reader.until(lambda: reader.seen, "there was a token")
    assert reader.interruptions == ["no token could be had: the login is away"]
    reader.task.cancel()


@pytest.mark.parametrize(
    ("wish", "said"), [({"max_rate": 5000.0}, "max_rate"), ({"conflate": True}, "conflation key")]
)
async def test_a_pace_that_cannot_be_had_is_refused(
    gateway: Serving, register: Register, sse: bool, wish: dict[str, Any], said: str
) -> None:
    reader = Reader(gateway, register.issue("ann"), sse=sse, **wish)
    with pytest.raises(Refused, match=said):
        await reader.until(lambda: False, "it was refused")
