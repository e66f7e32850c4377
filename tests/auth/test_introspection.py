"""Tokens that the provider is asked about: shared questions, answers that grow old, no trust."""

import asyncio
import base64
import json
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs

import pytest

from gateway.auth.introspection import MAX_WAITING, REFUSED, Introspection, credentials
from gateway.auth.memory import SIZE
from gateway.auth.provider import MAX_CONNECTIONS, Provider
from gateway.authconfig import IntrospectionConfig
from gateway.errors import IdentityUnavailable, InvalidToken, TokenFault
from gateway.principals import AuthType
from gateway.settings import Seconds
from tests.auth.answering import Answering, answering
from tests.identities import ADDRESS
from tests.servers import eventually

PATIENCE = 30


class Clock:
    """A time that passes when the test says so."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def provider() -> AsyncIterator[Answering]:
    async with answering() as provider:
        yield provider


@asynccontextmanager
async def asking(provider: Answering, clock: Clock, **more: Any) -> AsyncIterator[Introspection]:
    size = more.pop("size", SIZE)
    config = IntrospectionConfig(
        **{"url": provider.url, "client_id": "me:&", "client_secret": "päß"} | more
    )
    http = Provider(config.url, timeout=PATIENCE, auth=credentials(config))
    found = Introspection(config, http, size=size, clock=clock)
    running = asyncio.create_task(found.run())
    try:
        yield found
    finally:
        running.cancel()
        await asyncio.wait([running])


def active(clock: Clock, **more: Any) -> bytes:
    return json.dumps({"active": True, "sub": "alice", "exp": clock.now + 600} | more).encode()


async def fault(found: Introspection, token: str = "t") -> TokenFault:
    with pytest.raises(InvalidToken) as caught:
        await found.principal(token, ADDRESS)
    return caught.value.fault


async def test_the_answer_says_who_it_is(provider: Answering, clock: Clock) -> None:
    provider.say(active(clock, scope="read write", client_id="c", jti="j1"))
    async with asking(provider, clock, issuer="https://id", roles="scope") as found:
        alice = await found.principal("opaque/+~", ADDRESS)
    assert alice is not None
    assert (alice.id, alice.type, alice.issuer) == ("alice", AuthType.USER, "https://id")
    assert (alice.roles, alice.token_id, alice.expires) == (
        ("read", "write"),
        "j1",
        clock.now + 600,
    )
    head, _, body = provider.asked[0].partition(b"\r\n\r\n")
    assert parse_qs(body.decode())["token"] == ["opaque/+~"]
    shown = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"authorization"))
    assert base64.b64decode(shown.split()[2]) == b"me%3A%26:p%C3%A4%C3%9F"


async def test_the_same_token_is_asked_about_once(provider: Answering, clock: Clock) -> None:
    provider.say(active(clock))
    provider.open.clear()
    async with asking(provider, clock) as found:
        waiting = [asyncio.create_task(found.principal("t", ADDRESS)) for _ in range(50)]
        await eventually(lambda: provider.asked, within=PATIENCE, reason="it was asked")
        waiting[0].cancel()  # the one whose request it was goes away; the others do not suffer
        await asyncio.wait([waiting[0]])
        provider.open.set()
        assert {each.id for each in await asyncio.gather(*waiting[1:]) if each} == {"alice"}
        assert len(provider.asked) == 1


async def test_an_answer_grows_old(provider: Answering, clock: Clock) -> None:
    provider.say(active(clock))
    async with asking(provider, clock, cache=Seconds(30)) as found:
        await found.principal("t", ADDRESS)
        clock.now += 29
        await found.principal("t", ADDRESS)
        assert len(provider.asked) == 1
        provider.say(b'{"active": false}')
        clock.now += 2
        assert await fault(found) is TokenFault.INACTIVE
        assert await fault(found) is TokenFault.INACTIVE
        assert len(provider.asked) == 2
        clock.now += REFUSED
        provider.say(active(clock))
        assert await found.principal("t", ADDRESS)


async def test_no_answer_is_older_than_its_token(provider: Answering, clock: Clock) -> None:
    provider.say(active(clock, exp=clock.now + 10))
    async with asking(provider, clock, cache=Seconds(3600)) as found:
        await found.principal("t", ADDRESS)
        clock.now += 11
        assert await fault(found) is TokenFault.EXPIRED
        assert len(provider.asked) == 2


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"active": False}, TokenFault.INACTIVE),
        ({"iss": "https://evil"}, TokenFault.UNKNOWN_ISSUER),
        ({"aud": "another"}, TokenFault.AUDIENCE),
        ({"aud": None}, TokenFault.AUDIENCE),
        ({"exp": 1}, TokenFault.EXPIRED),
        ({"exp": "soon"}, TokenFault.CLAIMS),
        ({"nbf": 4_000_000_000}, TokenFault.NOT_YET_VALID),
        ({"sub": None}, TokenFault.CLAIMS),
        ({"sub": "a\nb"}, TokenFault.CLAIMS),
    ],
)
async def test_what_it_says_must_be_right(
    provider: Answering, clock: Clock, told: dict[str, Any], expected: TokenFault
) -> None:
    provider.say(active(clock, **{"iss": "https://id", "aud": "me"} | told))
    async with asking(provider, clock, issuer="https://id", audience=["me"]) as found:
        assert await fault(found) is expected


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", "401 Who are you"),
        (b'{"active": true, "sub": "alice"}', "500 Oh"),
        (b'{"active": true, "sub": "alice"}', "302 Found"),
        (b'{"active": "true", "sub": "alice"}', "200 OK"),
        (b'{"active": 1, "sub": "alice"}', "200 OK"),
        (b'{"active": false, "active": true, "sub": "alice"}', "200 OK"),
        (b'{"sub": "alice"}', "200 OK"),
        (b"[true]", "200 OK"),
        (b"yes", "200 OK"),
    ],
)
async def test_nobody_is_let_in_by_what_is_no_answer(
    provider: Answering,
    clock: Clock,
    body: bytes,
    status: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    provider.say(body, status)
    async with asking(provider, clock) as found:
        for _ in range(3):
            with pytest.raises(IdentityUnavailable):
                await found.principal("opaque-token", ADDRESS)
        provider.say(active(clock))
        assert await found.principal("opaque-token", ADDRESS)
    levels = [each.levelno for each in caplog.records if each.name == "gateway.auth.introspection"]
    assert levels.count(logging.WARNING) == 1
    assert "opaque-token" not in caplog.text


async def test_strangers_can_have_only_so_many_tokens_asked_about(
    provider: Answering, clock: Clock
) -> None:
    provider.say(active(clock))
    provider.open.clear()
    async with asking(provider, clock) as found:
        waiting = [
            asyncio.create_task(found.principal(f"t{n}", ADDRESS))
            for n in range(MAX_CONNECTIONS + MAX_WAITING)
        ]
        await eventually(lambda: provider.asked, within=PATIENCE, reason="it was asked")
        with pytest.raises(IdentityUnavailable, match="too many"):
            await found.principal("one more", ADDRESS)
        provider.open.set()
        assert all(await asyncio.gather(*waiting))


async def test_the_tokens_that_a_stranger_makes_up_keep_nobody_else_out(
    provider: Answering, clock: Clock
) -> None:
    provider.say(active(clock))
    async with asking(provider, clock) as found:
        provider.open.clear()
        strangers = [
            asyncio.create_task(found.principal(f"made up {n}", "198.51.100.1"))
            for n in range(2 * MAX_WAITING)
        ]
        await eventually(
            lambda: len(provider.asked) == MAX_CONNECTIONS, within=PATIENCE, reason="it was asked"
        )
        newcomer = asyncio.create_task(found.principal("new", ADDRESS))
        await asyncio.sleep(0)
        provider.open.set()
        assert await newcomer
        assert len(provider.asked) < 4 * MAX_CONNECTIONS
        await asyncio.wait(strangers)
        refused = [each for each in strangers if each.exception()]
        assert len(refused) == len(strangers) - MAX_CONNECTIONS - MAX_WAITING + 1


async def test_no_token_is_forgotten_for_those_that_a_stranger_makes_up(
    provider: Answering, clock: Clock
) -> None:
    provider.say(active(clock))
    async with asking(provider, clock, size=3) as found:
        assert await found.principal("known", ADDRESS)
        provider.say(b'{"active": false}')
        for n in range(5):
            assert await fault(found, f"made up {n}") is TokenFault.INACTIVE
        assert await found.principal("known", ADDRESS)
        assert len(provider.asked) == 6


async def test_at_the_end_nothing_is_left_open(provider: Answering, clock: Clock) -> None:
    provider.open.clear()
    async with asking(provider, clock) as found:
        waiting = asyncio.create_task(found.principal("t", ADDRESS))
        await eventually(lambda: provider.asked, within=PATIENCE, reason="it was asked")
    await asyncio.wait([waiting])
    assert waiting.cancelled()
