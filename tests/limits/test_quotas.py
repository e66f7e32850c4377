"""Quotas: what somebody holds at a time is counted over all processes, whatever becomes of them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from gateway.admission import Admission
from gateway.broker.keys import Keys
from gateway.broker.roll import Roll
from gateway.broker.scripts import Pipeline
from gateway.config import QuotasConfig
from gateway.errors import BrokerUnavailable, QuotaExceeded
from gateway.limits.quotas import Quotas
from gateway.principals import AuthType, Caller, Principal
from gateway.telemetry.metrics import Metrics
from tests.servers import Broker, eventually

ANNA = Caller(Principal(id="anna", type=AuthType.USER), "203.0.113.1")
ANNA_ELSEWHERE = Caller(Principal(id="anna", type=AuthType.USER), "203.0.113.2")
BERT = Caller(Principal(id="bert", type=AuthType.USER), "203.0.113.1")
NOBODY = Caller(address="203.0.113.3")


class Cable(Pipeline):
    """A way to the broker that can be cut."""

    cut = False

    async def call(self, name: str, keys: list[str], arguments: list[Any]) -> Any:
        if self.cut:
            raise BrokerUnavailable("the cable is cut")
        return await super().call(name, keys, arguments)


class Node:
    """The quotas of one process."""

    def __init__(self, broker: Broker, name: str, **quotas: int) -> None:
        self.cable = Cable(broker.clients.commands)
        keys = Keys(broker.config.namespace)
        admission = Admission(lambda: asyncio.sleep(0), limit=100, patience=5)
        roll = Roll(self.cable, keys, name)
        self.admission = admission
        self.quotas = Quotas(QuotasConfig(**quotas), roll, admission, Metrics())

    async def enters(self, caller: Caller, subscriptions: int = 0) -> bool:
        try:
            await self.quotas.enter(caller, subscriptions=subscriptions)
        except QuotaExceeded:
            return False
        return True


@asynccontextmanager
async def running(*nodes: Node) -> AsyncIterator[None]:
    jobs = [job for node in nodes for job in (node.quotas.run(), node.admission.run())]
    tasks = [asyncio.create_task(job) for job in jobs]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def test_all_processes_count_together(broker: Broker) -> None:
    one, other = (Node(broker, name, connections_per_principal=2) for name in "ab")
    assert await one.enters(ANNA)
    assert await other.enters(ANNA_ELSEWHERE)
    assert not await one.enters(ANNA)
    assert not await other.enters(ANNA)
    assert await one.enters(BERT)


async def test_each_address_has_its_own_whoever_is_there(broker: Broker) -> None:
    node = Node(broker, "a", connections_per_ip=2)
    assert await node.enters(ANNA)
    assert await node.enters(BERT)
    assert not await node.enters(BERT)
    assert await node.enters(ANNA_ELSEWHERE)


async def test_who_shows_no_credentials_counts_as_its_address(broker: Broker) -> None:
    node = Node(broker, "a", connections_per_principal=1)
    assert await node.enters(NOBODY)
    assert not await node.enters(NOBODY)
    assert await node.enters(Caller(address="203.0.113.4"))


async def test_a_refusal_says_which_quota_it_is(broker: Broker) -> None:
    node = Node(broker, "a", connections_per_ip=5, subscriptions_per_principal=3)
    await node.quotas.enter(ANNA, subscriptions=3)
    with pytest.raises(QuotaExceeded) as caught:
        await node.quotas.enter(ANNA, subscriptions=1)
    assert str(caught.value) == "expected at most 3 subscriptions per principal"
    assert caught.value.extra == {"limit": "subscriptions_per_principal"}
    assert (caught.value.status, caught.value.code) == (429, "quota-exceeded")


async def test_what_is_given_back_others_may_have(broker: Broker) -> None:
    one, other = (Node(broker, name, connections_per_ip=1) for name in "ab")
    async with running(one, other):
        holding = await one.quotas.enter(ANNA)
        assert not await other.enters(ANNA)
        holding.close()
        holding.close()  # twice is once

        async def entered() -> bool:
            return await other.enters(ANNA)

        await eventually(entered, reason="there was room again")
        assert not await one.enters(ANNA)


async def test_a_connection_gives_its_subscriptions_back_one_by_one(broker: Broker) -> None:
    node = Node(broker, "a", subscriptions_per_ip=3)
    holding = await node.quotas.enter(ANNA, subscriptions=2)
    await holding.subscribe()
    with pytest.raises(QuotaExceeded):
        await holding.subscribe()
    holding.unsubscribe()
    await holding.subscribe()
    holding.close()
    assert await node.enters(ANNA, 3)


async def test_a_subscription_that_comes_after_the_end_holds_nothing(broker: Broker) -> None:
    node = Node(broker, "a", subscriptions_per_ip=1)
    holding = await node.quotas.enter(ANNA)
    late = asyncio.create_task(holding.subscribe())
    await asyncio.sleep(0)
    holding.close()
    await late
    assert await node.enters(ANNA, 1)


async def test_who_gives_up_holds_nothing(broker: Broker) -> None:
    node = Node(broker, "a", connections_per_ip=1)
    entering = asyncio.create_task(node.quotas.enter(ANNA))
    await asyncio.sleep(0)
    entering.cancel()
    await asyncio.wait([entering])
    assert entering.cancelled()
    assert await node.enters(ANNA)


async def test_many_at_once_are_let_in_up_to_the_last_place(broker: Broker) -> None:
    nodes = [Node(broker, name, connections_per_ip=10) for name in "abcd"]
    entered = await asyncio.gather(*(node.enters(ANNA) for node in nodes * 20))
    assert sum(entered) == 10


async def test_with_the_broker_away_each_process_has_its_share(broker: Broker) -> None:
    one, other = (Node(broker, name, connections_per_ip=4) for name in "ab")
    async with running(one, other):
        await eventually(
            lambda: {one.quotas.processes, other.quotas.processes} == {2},
            within=30,
            reason="the processes knew of each other",
        )
        assert await one.enters(ANNA)
        one.cable.cut = True
        assert [await one.enters(ANNA) for _ in range(3)] == [True, False, False]
        one.cable.cut = False

        async def heard() -> bool:
            count = await held(broker, "a", "connections/ip:203.0.113.1")
            return count == 2

        await eventually(heard, within=30, reason="the broker heard what it missed")
        assert [await other.enters(ANNA) for _ in range(3)] == [True, True, False]


async def test_a_process_writes_its_truth_anew_where_it_was_lost(broker: Broker) -> None:
    node = Node(broker, "a", connections_per_ip=4)
    async with running(node):
        for _ in range(3):
            assert await node.enters(ANNA)
        await broker.clients.commands.flushall()

        async def known() -> bool:
            return await held(broker, "a", "connections/ip:203.0.113.1") == 3

        await eventually(known, within=30, reason="all that it holds was known again")


async def held(broker: Broker, node: str, name: str) -> int:
    key = Keys(broker.config.namespace).held_by(node)
    found: Any = await broker.clients.commands.hget(key, name)
    return int(found or 0)


async def test_who_leaves_gives_everything_back(broker: Broker) -> None:
    one, other = (Node(broker, name, connections_per_ip=1) for name in "ab")
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(running(one))
        assert await one.enters(ANNA)
    await one.quotas.leave()
    assert await other.enters(ANNA)
