"""Cancelling a call to the broker: it ends the caller, whatever the client library makes of it."""

import asyncio
from contextlib import suppress

import pytest

from gateway.broker.client import translated


async def swallow() -> None:
    """Return as if nothing were, as `asyncio.wait_for` of Python 3.11 does now and then."""
    with suppress(asyncio.CancelledError):
        await asyncio.Event().wait()


async def test_a_loop_of_calls_ends_also_where_the_cancellation_was_swallowed() -> None:
    async def call_for_ever() -> None:
        while True:
            with translated():
                await swallow()

    calling = asyncio.create_task(call_for_ever())
    await asyncio.sleep(0)
    calling.cancel()
    done, _ = await asyncio.wait([calling], timeout=5)
    assert done
    assert calling.cancelled()


async def test_a_deadline_around_a_call_is_kept_where_the_cancellation_was_swallowed() -> None:
    async def call() -> None:
        async with asyncio.timeout(0.01):
            with translated():
                await swallow()

    with pytest.raises(TimeoutError):
        await call()


async def test_a_task_that_was_cancelled_can_still_clear_up() -> None:
    cleared = False

    async def call_and_clear_up() -> None:
        nonlocal cleared
        try:
            await asyncio.Event().wait()
        finally:
            with translated():
                await asyncio.sleep(0)
            cleared = True

    calling = asyncio.create_task(call_and_clear_up())
    await asyncio.sleep(0)
    calling.cancel()
    await asyncio.wait([calling])
    assert calling.cancelled()
    assert cleared
