"""Keys at a URL: fetched when needed, by one for all, within bounds, and kept while it is down."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest

from gateway.auth.provider import MAX_ANSWER, Provider, ProviderFailed
from gateway.auth.remotekeys import BURST, PERIOD, RemoteKeys
from gateway.authconfig import Algorithm
from gateway.errors import IdentityUnavailable
from gateway.policy.keysets import of_document
from tests.auth.answering import Answering, answering
from tests.auth.issuing import jwk, jwks
from tests.servers import eventually

ALGORITHM = Algorithm.EDDSA
PATIENCE = 30


class Clock:
    """A time that passes when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def issuer() -> AsyncIterator[Answering]:
    async with answering() as issuer:
        issuer.say(jwks(jwk("EdDSA", "k1")))
        yield issuer


@asynccontextmanager
async def keys_of(
    issuer: Answering, clock: Clock, refresh: float = 600
) -> AsyncIterator[RemoteKeys]:
    provider = Provider(issuer.url, timeout=PATIENCE)
    read = partial(of_document, algorithms=[ALGORITHM])
    keys = RemoteKeys(provider, read, refresh=refresh, max_stale=3600, clock=clock)
    running = asyncio.create_task(keys.run())
    try:
        yield keys
    finally:
        running.cancel()
        await asyncio.wait([running])


async def test_those_who_come_first_share_one_request(issuer: Answering, clock: Clock) -> None:
    issuer.open.clear()
    async with keys_of(issuer, clock) as keys:
        waiting = [asyncio.create_task(keys.find("k1", ALGORITHM)) for _ in range(50)]
        await eventually(lambda: issuer.asked, within=PATIENCE, reason="the issuer was asked")
        waiting[0].cancel()
        issuer.open.set()
        found = await asyncio.gather(*waiting[1:])
        assert all(key is not None and key.kid == "k1" for key in found)
        assert len(issuer.asked) == 1


async def test_an_unknown_key_is_looked_for_at_once(issuer: Answering, clock: Clock) -> None:
    async with keys_of(issuer, clock) as keys:
        assert await keys.find("k1", ALGORITHM)
        issuer.say(jwks(jwk("EdDSA", "k2")))
        assert await keys.find("k2", ALGORITHM)
        assert await keys.find("k1", ALGORITHM) is None


async def test_strangers_with_made_up_keys_cannot_have_the_issuer_hammered(
    issuer: Answering, clock: Clock
) -> None:
    async with keys_of(issuer, clock) as keys:
        for number in range(200):
            assert await keys.find(f"made-up-{number}", ALGORITHM) is None
        assert len(issuer.asked) == 1 + BURST
        clock.now += PERIOD
        for number in range(200):
            assert await keys.find(f"more-{number}", ALGORITHM) is None
        assert len(issuer.asked) == 2 + BURST
        assert await keys.find("k1", ALGORITHM)


async def test_the_same_keys_are_the_same_object(issuer: Answering, clock: Clock) -> None:
    async with keys_of(issuer, clock) as keys:
        assert await keys.find("k1", ALGORITHM)
        before = keys.current()
        assert await keys.find("k2", ALGORITHM) is None
        assert keys.current() is before
        issuer.say(jwks(jwk("EdDSA", "k1"), jwk("EdDSA", "k2", 1)))
        assert await keys.find("k2", ALGORITHM)
        assert keys.current() is not before


async def test_they_are_fetched_anew_when_they_are_old(issuer: Answering, clock: Clock) -> None:
    async with keys_of(issuer, clock, refresh=0.01):
        await eventually(
            lambda: len(issuer.asked) > 3, within=PATIENCE, reason="the issuer was asked again"
        )


@pytest.mark.parametrize(
    ("body", "status", "headers", "reason"),
    [
        (b"", "500 Oh", (), "expected status 200 but got 500"),
        (b"", "302 Found", ("location: http://127.0.0.1:1/",), "expected status 200 but got 302"),
        (b"<html>", "200 OK", (), "expected a JWKS"),
        (b"[]", "200 OK", (), "expected a JWKS"),
        (b'{"keys": 1}', "200 OK", (), "expected a JWKS"),
        (b'{"keys": [], "keys": []}', "200 OK", (), "expected a JWKS"),
        (b"x" * (MAX_ANSWER + 1), "200 OK", (), f"expected at most {MAX_ANSWER} bytes"),
        (b"x", "200 OK", ("content-encoding: gzip",), "not compressed"),
    ],
)
async def test_the_last_good_keys_go_on_counting(
    issuer: Answering,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
    body: bytes,
    status: str,
    headers: tuple[str, ...],
    reason: str,
) -> None:
    async with keys_of(issuer, clock) as keys:
        assert await keys.find("k1", ALGORITHM)
        issuer.say(body, status, *headers)
        with pytest.raises(IdentityUnavailable):
            await keys.find("k2", ALGORITHM)
        assert await keys.find("k1", ALGORITHM)
        with pytest.raises(IdentityUnavailable):
            await keys.find("k2", ALGORITHM)
        assert len(issuer.asked) == 2  # while it is down, nobody has it asked
        warnings = [each.message for each in caplog.records if each.levelno == logging.WARNING]
        assert len(warnings) == 1
        assert reason in warnings[0]
        clock.now += 600 + 3601
        with pytest.raises(IdentityUnavailable):
            await keys.find("k1", ALGORITHM)


async def test_an_issuer_that_publishes_no_key_has_taken_them_all_back(
    issuer: Answering, clock: Clock
) -> None:
    async with keys_of(issuer, clock) as keys:
        assert await keys.find("k1", ALGORITHM)
        issuer.say(jwks())
        assert await keys.find("k2", ALGORITHM) is None
        assert await keys.find("k1", ALGORITHM) is None


async def test_who_asks_while_there_were_never_any_is_told_to_come_back(
    issuer: Answering, clock: Clock
) -> None:
    issuer.say(b"", "503 Later")
    async with keys_of(issuer, clock) as keys:
        with pytest.raises(IdentityUnavailable):
            await keys.find("k1", ALGORITHM)


async def test_an_answer_that_does_not_end_is_given_up_on(issuer: Answering) -> None:
    issuer.answer = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"
    provider = Provider(issuer.url, timeout=0.05)
    with pytest.raises(ProviderFailed, match="no answer within"):
        await provider.get()
    await provider.close()
