"""Slow peers, shutdowns and restarts: who loses the connection loses nothing else."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from gateway.broker.embedded import server_arguments
from gateway.broker.process import ServerProcess
from gateway.errors import CloseCode
from gateway.settings import Bytes
from tests.contract.serving import Serving, Transports, serving
from tests.contract.subscribers import EventStreamSubscriber, Kind
from tests.contract.talking import talk
from tests.servers import RunningServer, eventually, running

LARGE = "x" * 8000
WINDOW_MS = 2000


async def test_a_slow_subscriber_is_closed_and_resumes_without_loss(
    log: RunningServer, transports: Transports, kind: Kind
) -> None:
    async with (
        serving(log, transports, tight=True, write_buffer=Bytes(128 << 10)) as gateway,
        kind.open(gateway.port, "orders", narrow=True) as slow,
        kind.open(gateway.port, "orders") as fast,
    ):
        hub = gateway.gateway.hub
        await slow.stands()
        await fast.stands()
        count = 0
        while len(hub) == 2:  # the slow one reads nothing any more
            await gateway.publish("orders", *([count + n, LARGE] for n in range(5)))
            count += 5
            await fast.has(count)
        await gateway.publish("orders", [count, LARGE])
        count += 1
        await fast.has(count)
        assert [data[0] for data in fast.data] == list(range(count))
        goodbye = await slow.end()
        assert goodbye.code == CloseCode.SLOW_CONSUMER
        assert len(slow.data) < count
        async with kind.open(gateway.port, "orders", after=slow.position) as again:
            await again.has(count - len(slow.data))
        assert again.recovered == {"orders": True}
        assert [data[0] for data in slow.data + again.data] == list(range(count))
        assert len(hub) <= 2


async def test_who_takes_its_time_with_the_past_is_not_slow(
    log: RunningServer, transports: Transports, kind: Kind
) -> None:
    async with serving(log, transports, tight=True, write_buffer=Bytes(128 << 10)) as gateway:
        for number in range(0, 100, 5):
            await gateway.publish("orders", *([number + n, LARGE] for n in range(5)))
        await gateway.settled()
        async with kind.open(gateway.port, "orders", after="earliest", narrow=True) as subscriber:
            await subscriber.stands()
            await gateway.publish("orders", *([100 + n, LARGE] for n in range(5)))
            await gateway.settled()
            await subscriber.has(105)
        assert [data[0] for data in subscriber.data] == list(range(105))


async def test_who_cannot_follow_while_catching_up_is_slow(
    log: RunningServer, transports: Transports, kind: Kind
) -> None:
    async with serving(log, transports, tight=True, write_buffer=Bytes(128 << 10)) as gateway:
        for number in range(0, 100, 5):
            await gateway.publish("orders", *([number + n, LARGE] for n in range(5)))
        await gateway.settled()
        count = 100
        async with kind.open(gateway.port, "orders", after="earliest", narrow=True) as slow:
            await slow.stands()
            while len(gateway.gateway.hub):
                await gateway.publish("orders", [count, LARGE])
                await gateway.settled()
                count += 1
            goodbye = await slow.end()
        assert goodbye.code == CloseCode.SLOW_CONSUMER
        async with kind.open(gateway.port, "orders", after=slow.position) as again:
            await again.has(count - len(slow.data))
        assert [data[0] for data in slow.data + again.data] == list(range(count))


async def test_at_shutdown_everybody_is_told_when_and_where_to_come_back(
    gateway: Serving, kind: Kind
) -> None:
    async with asyncio.TaskGroup() as tasks:
        together = asyncio.Barrier(9)

        async def stay() -> int:
            async with kind.open(gateway.port, "orders") as subscriber:
                await subscriber.stands()
                await together.wait()
                goodbye = await subscriber.end()
                assert goodbye.code == CloseCode.SHUTDOWN
                assert subscriber.position == str(gateway.gateway.hub.token)
                return goodbye.retry_ms

        staying = [tasks.create_task(stay()) for _ in range(8)]
        await together.wait()
        await gateway.publish("fleeting", 1)  # whoever does not hear it moves on, too
        await gateway.settled()
        gateway.shut_down()
    delays = [task.result() for task in staying]
    assert all(0 <= delay <= WINDOW_MS for delay in delays)
    assert len(set(delays)) > 1


async def test_who_is_let_in_while_the_gateway_stops_is_told_to_come_back(
    gateway: Serving, kind: Kind
) -> None:
    gateway.gateway.say_goodbye()  # somebody's handshake took until now
    async with kind.open(gateway.port, "orders") as late:
        await late.stands()
        assert (await late.end()).code == CloseCode.SHUTDOWN
        assert late.position == str(gateway.gateway.hub.token)


async def test_a_restart_loses_nothing(
    log: RunningServer, transports: Transports, kind: Kind
) -> None:
    async with serving(log, transports) as before:
        namespace = before.gateway.config.broker.namespace
        async with kind.open(before.port, "orders", "orders:c-1") as first:
            await first.stands(2)
            await before.publish("orders", 1)
            await first.has(1)
            before.shut_down()
            await before.publish("orders:c-1", 2)
            assert (await first.end()).code == CloseCode.SHUTDOWN
    async with serving(log, transports, namespace=namespace) as after:
        await after.publish("orders", 3)
        channels = ("orders", "orders:c-1")
        async with kind.open(after.port, *channels, after=first.position) as second:
            await second.has(2)
    assert second.recovered == {"orders": True, "orders:c-1": True}
    assert second.data == [2, 3]


async def test_an_event_reaches_the_subscribers_of_every_process(
    log: RunningServer, transports: Transports, kind: Kind
) -> None:
    async with serving(log, transports) as here:
        namespace = here.gateway.config.broker.namespace
        async with (
            serving(log, transports, namespace=namespace) as there,
            kind.open(here.port, "orders") as one,
            kind.open(there.port, "orders") as other,
        ):
            await one.stands()
            await other.stands()
            await here.publish("orders", 1, 2)
            await there.publish("orders", 3)
            await one.has(3)
            await other.has(3)
    assert one.delivered == other.delivered
    assert one.data == [1, 2, 3]


async def test_while_the_log_is_away_connections_stay_and_then_go_on(
    log: RunningServer, transports: Transports
) -> None:
    with running(log.binary) as own, ExitStack() as stack:
        async with (
            serving(own, transports) as gateway,
            talk(gateway.port, "?channel=orders") as client,
            EventStreamSubscriber.open(gateway.port, "orders") as stream,
        ):
            await client.hear()
            await gateway.publish("orders", 1)
            assert await client.events(1) == [1]
            await stream.has(1)
            own.process.kill()
            again = {"channel": "orders:c-1", "after": stream.position}
            refusal = await client.ask({"id": 7, "subscribe": again})
            assert (refusal["id"], refusal["error"]["code"]) == (7, "broker-unavailable")
            port, after = gateway.port, stream.position
            async with EventStreamSubscriber.open(port, "orders", after=after) as turned_away:
                assert (await turned_away.end()).code == CloseCode.SHUTDOWN
            stack.enter_context(restarted(own))
            await eventually(gateway.publishes("orders", 2), within=30, reason="it was back")
            assert await client.events(1) == [2]
            await stream.has(2)
            assert (await client.subscribe("orders:c-1", stream.position))["recovered"]
    assert stream.data == [1, 2]


@contextmanager
def restarted(server: RunningServer) -> Iterator[None]:
    """Run a server that was killed again, over the data that it left."""
    arguments = server_arguments(server.directory, server.socket)
    process = ServerProcess(server.binary, arguments, log=server.directory / "again.log")
    try:
        yield
    finally:
        process.kill()
