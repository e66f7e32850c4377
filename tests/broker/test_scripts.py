"""Script calls that share round trips: each gets its own answer, and nobody waits in vain."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.exceptions import ResponseError

from gateway.broker.client import Clients
from gateway.broker.keys import Keys
from gateway.broker.scripts import BATCH_BYTES, MAX_BATCH, Pipeline, script
from gateway.broker.silence import REST
from gateway.errors import BrokerUnavailable
from tests.servers import Broker, RunningServer, eventually, free_port, running, valkey_binary

TIMEOUT = 0.5
LEASE = "{t}:lease"


@pytest.fixture
def pipeline(broker: Broker) -> Pipeline:
    return Pipeline(broker.clients.commands)


async def acquire(pipeline: Pipeline, token: str, key: str = LEASE) -> Any:
    """Take a lease with the script of that name; [1] if it was free or one's own."""
    return await pipeline.call("acquire", [key], [token, 60_000, 1])


async def test_calls_are_made_in_the_order_in_which_they_were_asked_for(pipeline: Pipeline) -> None:
    count = 2 * MAX_BATCH + 10
    names = [f"w-{number}" for number in range(count)]
    taken = await asyncio.gather(*[acquire(pipeline, name) for name in names])
    assert taken == [[1]] + [[0]] * (count - 1)


async def test_concurrent_calls_share_round_trips(pipeline: Pipeline, broker: Broker) -> None:
    await acquire(pipeline, "w")
    redis: Any = broker.clients.commands
    before = (await redis.info("stats"))["total_reads_processed"]
    await asyncio.gather(*[acquire(pipeline, "w") for _ in range(MAX_BATCH)])
    assert (await redis.info("stats"))["total_reads_processed"] - before < MAX_BATCH / 4


class Counting(Pipeline):
    """Notes how many calls shared each round trip."""

    def __init__(self, redis: Any) -> None:
        super().__init__(redis)
        self.counts: list[int] = []

    async def _send(self, batch: list[Any]) -> list[Any]:
        self.counts.append(len(batch))
        return await super()._send(batch)


async def test_large_calls_are_not_written_all_at_once(broker: Broker) -> None:
    pipeline = Counting(broker.clients.commands)
    token = "w" * (BATCH_BYTES // 2)
    assert await asyncio.gather(*[acquire(pipeline, token) for _ in range(8)]) == [[1]] * 8
    assert max(pipeline.counts) == 2
    token *= 3
    assert await acquire(pipeline, token, "{t}:other") == [1]


async def test_a_server_that_forgot_the_scripts_is_told_them_again(
    pipeline: Pipeline, broker: Broker
) -> None:
    assert await acquire(pipeline, "w") == [1]
    await broker.clients.commands.script_flush()
    keys = Keys("t")
    taken, enrolled, other = await asyncio.gather(
        acquire(pipeline, "w"),
        pipeline.call("enroll", [keys.workers("s")], ["w", 60_000]),
        acquire(pipeline, "x"),
    )
    assert (taken, enrolled, other) == ([1], 1, [0])


async def test_one_call_that_fails_leaves_the_others_alone(
    pipeline: Pipeline, broker: Broker
) -> None:
    await broker.clients.commands.hset("{t}:hash", "a", "b")
    outcomes: list[Any] = await asyncio.gather(
        *[acquire(pipeline, "w", key) for key in (LEASE, "{t}:hash", LEASE)],
        return_exceptions=True,
    )
    good, bad, another = outcomes
    assert (good, another) == ([1], [1])
    assert isinstance(bad, ResponseError)
    assert "WRONGTYPE" in str(bad)


async def test_a_call_that_cannot_be_sent_fails_with_what_is_wrong(pipeline: Pipeline) -> None:
    """As a cancellation it would end whoever called without a word."""
    with pytest.raises(UnicodeEncodeError):
        await acquire(pipeline, "w", key="\ud800")
    assert await acquire(pipeline, "w") == [1]


async def test_a_caller_that_is_cancelled_takes_back_a_call_that_was_not_sent(
    pipeline: Pipeline,
) -> None:
    going = asyncio.ensure_future(acquire(pipeline, "gone"))
    staying = asyncio.ensure_future(acquire(pipeline, "stays"))
    await asyncio.sleep(0)
    going.cancel()
    assert await staying == [1]
    assert going.cancelled()
    assert await acquire(pipeline, "gone") == [0]


def test_every_script_begins_with_what_all_share() -> None:
    prelude = script("append").source.partition(b"-- Appends events that no command")[0]
    assert prelude
    for name in ("accept", "settle", "status", "resign"):
        assert script(name).source.startswith(prelude)
    assert script("status") is script("status")


# --- A silent server


@pytest.fixture
async def silent() -> AsyncIterator[tuple[Pipeline, RunningServer]]:
    """A pipeline to a server that was stopped in the middle of its work, and is continued."""
    with running(valkey_binary()) as server:
        clients = Clients(server.url, timeout=TIMEOUT)
        try:
            pipeline = Pipeline(clients.commands)
            assert await acquire(pipeline, "w") == [1]
            os.kill(server.process.pid, signal.SIGSTOP)
            yield pipeline, server
        finally:
            os.kill(server.process.pid, signal.SIGCONT)
            await clients.close()


async def refused(pipeline: Pipeline) -> tuple[str, float]:
    """Make a call that is refused; return why, and after how many seconds."""
    begun = time.monotonic()
    with pytest.raises(BrokerUnavailable) as caught:
        await acquire(pipeline, "w")
    return caught.value.detail, time.monotonic() - begun


async def test_only_the_first_waits_for_a_silent_server(
    silent: tuple[Pipeline, RunningServer],
) -> None:
    pipeline, _ = silent
    sentence, first = await refused(pipeline)
    assert sentence == "the broker did not answer in time"
    assert first >= TIMEOUT
    outcomes = await asyncio.gather(*[refused(pipeline) for _ in range(100)])
    assert {why for why, _ in outcomes} == {"the broker left an earlier call unanswered"}
    assert max(took for _, took in outcomes) < TIMEOUT


async def test_who_waits_behind_an_unanswered_call_is_refused_with_it(
    silent: tuple[Pipeline, RunningServer],
) -> None:
    """In one turn of the event loop: however busy the machine is, nobody waits for a second try."""
    pipeline, _ = silent
    calls = [asyncio.ensure_future(acquire(pipeline, "w")) for _ in range(3 * MAX_BATCH)]
    done, pending = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
    assert not pending
    why = {str(call.exception()) for call in done}
    assert why == {"the broker did not answer in time"}


async def test_one_at_a_time_tries_whether_a_silent_server_is_back(
    silent: tuple[Pipeline, RunningServer],
) -> None:
    pipeline, server = silent
    await refused(pipeline)
    await asyncio.sleep(REST)
    trying = asyncio.ensure_future(refused(pipeline))
    await asyncio.sleep(0)
    outcomes = await asyncio.gather(*[refused(pipeline) for _ in range(100)])
    assert max(took for _, took in outcomes) < TIMEOUT
    assert (await trying)[1] >= TIMEOUT

    os.kill(server.process.pid, signal.SIGCONT)

    async def answered() -> bool:
        try:
            return bool(await acquire(pipeline, "w") == [1])
        except BrokerUnavailable:
            return False

    await eventually(answered, within=30, reason="the server was asked again")
    assert await asyncio.gather(*[acquire(pipeline, "w") for _ in range(100)]) == [[1]] * 100


async def test_a_server_that_refuses_is_asked_each_time() -> None:
    clients = Clients(f"redis://127.0.0.1:{free_port()}", timeout=TIMEOUT)
    pipeline = Pipeline(clients.commands)
    for _ in range(20):
        sentence, took = await refused(pipeline)
        assert sentence == "the broker cannot be reached"
        assert took < TIMEOUT
    await clients.close()
