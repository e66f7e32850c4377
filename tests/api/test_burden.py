"""What large bodies take together, however slowly they come, is bounded; small ones always fit."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from gateway.api import burden
from gateway.settings import Bytes
from tests.api.conftest import config_of
from tests.api.stand import Stand, problem, standing
from tests.servers import RunningServer, eventually

LARGE = 100_000
ORDER = b'{"customer":"c-1","qty":1}'


@pytest.fixture
async def api(
    valkey: RunningServer, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Stand]:
    """A gateway behind a proxy, that takes sixteen large bodies at a time, four of one address."""
    monkeypatch.setattr(burden, "MOST", 0)
    monkeypatch.setattr(burden, "SHARE", 0)
    folder = tmp_path_factory.mktemp("burden")
    limits = {"max_body": Bytes(LARGE), "trusted_proxies": ("127.0.0.1",)}
    async with standing(config_of(valkey, folder, **limits)) as stand:
        yield stand


@asynccontextmanager
async def halting(api: Stand, address: str) -> AsyncIterator[asyncio.StreamReader]:
    """A request whose body stops coming just before its end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    head = f"POST /orders HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: {address}\r\n"
    writer.write(f"{head}Content-Length: {LARGE}\r\n\r\n".encode() + b" " * (LARGE - 1))
    try:
        yield reader
    finally:
        writer.transport.abort()


async def post(api: Stand, address: str, size: int) -> str:
    """Post an order in a body of this size. Returns how it was refused; empty if it was not."""
    answer = await api.post("/orders", ORDER.ljust(size), x_forwarded_for=address)
    return "" if answer.status_code == 202 else problem(answer, 503, "overloaded")


async def refused(api: Stand, address: str) -> str:
    return await post(api, address, LARGE)


async def test_one_address_has_its_share_and_small_bodies_always_fit(api: Stand) -> None:
    async with AsyncExitStack() as slow:
        for _ in range(4):
            await slow.enter_async_context(halting(api, "192.0.2.1"))
        detail = await eventually(lambda: refused(api, "192.0.2.1"), reason="it has its share")
        assert detail == f"expected large bodies of at most {4 * LARGE} bytes of one address"
        assert await post(api, "192.0.2.2", LARGE) == ""
        assert await post(api, "192.0.2.1", burden.SMALL) == ""


async def test_all_of_them_have_a_bound_and_what_ended_makes_room(api: Stand) -> None:
    async with AsyncExitStack() as slow:
        for number in range(16):
            await slow.enter_async_context(halting(api, f"192.0.2.{number}"))
        detail = await eventually(lambda: refused(api, "192.0.2.99"), reason="all is taken")
        assert detail == f"expected large bodies of at most {16 * LARGE} bytes at a time"
        assert await post(api, "192.0.2.99", burden.SMALL) == ""

    async def fits() -> bool:
        return not await refused(api, "192.0.2.99")

    await eventually(fits, reason="there is room again")
