"""Who is at the other end of a connection, and for how long: over both ways of serving."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any
from urllib.parse import quote

import httpx
import msgspec
import pytest
from websockets.exceptions import InvalidStatus
from websockets.frames import Opcode

from gateway.broker import tickets
from gateway.config import (
    AdminConfig,
    ChannelConfig,
    Config,
    HistoryConfig,
    LimitConfig,
    QueueConfig,
    QuotasConfig,
)
from gateway.principals import Principal
from gateway.settings import Frequency, Of, Per, Seconds
from tests.contract.serving import DETACHED, Serving, Transports, serving
from tests.contract.subscribers import EventStreamSubscriber, http_stream
from tests.contract.talking import REQUEST, frame, raw, talk
from tests.identities import Register, Secured
from tests.servers import RunningServer, eventually

pytestmark = pytest.mark.anyio

PATIENT = Seconds(60)


def secured(config: Config, **auth: Any) -> Config:
    """A channel of one's own, one for all, and one for those with a role."""
    history = HistoryConfig()
    usual: dict[str, Any] = {"first_frame": PATIENT, "cookie": "session"}
    return msgspec.structs.replace(
        config,
        auth=Secured(**usual | auth),
        admin=AdminConfig(tokens=["operator"]),
        channels=[
            ChannelConfig(pattern="own:{name}", subscribe="principal.id == name", history=history),
            ChannelConfig(pattern="all", subscribe="true", history=history),
            ChannelConfig(pattern="staff", subscribe="'staff' in principal.roles"),
        ],
        commands=[
            msgspec.structs.replace(each, allow="principal.type == 'user'")
            for each in config.commands
        ],
    )


@pytest.fixture
def register() -> Register:
    return Register()


@asynccontextmanager
async def guarded(
    log: RunningServer,
    transports: Transports,
    register: Register,
    *,
    namespace: str = "",
    **auth: Any,
) -> AsyncIterator[Serving]:
    change = partial(secured, **auth)
    async with serving(
        log, transports, change=change, sources=[register], namespace=namespace
    ) as running:
        yield running


@pytest.fixture
async def gateway(
    valkey: RunningServer, transports: Transports, register: Register
) -> AsyncIterator[Serving]:
    async with guarded(valkey, transports, register) as running:
        yield running


def bearing(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def ask(gateway: Serving, method: str, path: str, **options: Any) -> httpx.Response:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{gateway.port}") as http:
        return await http.request(method, path, **options)


async def ticket(gateway: Serving, token: str, *channels: str) -> str:
    body = {"channels": channels} if channels else {}
    answer = await ask(gateway, "POST", "/tickets", json=body, headers=bearing(token))
    assert answer.status_code == 201, answer.text
    assert 0 < answer.json()["expires_in_ms"] <= 30_000
    found: str = answer.json()["ticket"]
    return found


async def test_the_first_frame_says_who_it_is_and_what_the_url_asked_for_waits_for_that(
    gateway: Serving, register: Register
) -> None:
    token = register.issue("ann", lasts=600)
    async with talk(gateway.port, "?channel=own:ann") as ann:
        said = await ann.ask({"id": 1, "authenticate": {"token": token}})
        expires = said["authenticated"].pop("expires_in_ms")
        assert said == {"id": 1, "authenticated": {"principal": {"id": "ann", "type": "user"}}}
        assert 0 < expires <= 600_000
        assert (await ann.hear())["subscribed"]["channel"] == "own:ann"
        await gateway.publish("own:ann", 1)
        assert await ann.events(1) == [1]


async def test_frames_behind_the_first_one_wait_for_its_answer(
    gateway: Serving, register: Register
) -> None:
    async with talk(gateway.port) as ann:
        await ann.say(
            {"id": 1, "authenticate": {"token": register.issue("ann")}},
            {"id": 2, "subscribe": {"channel": "own:ann"}},
            {"id": 3, "subscribe": {"channel": "own:bob"}},
        )
        assert [(await ann.hear())["id"] for _ in range(3)] == [1, 2, 3]


class Slow(Register):
    """Takes its time to know a token."""

    def __init__(self) -> None:
        super().__init__()
        self.may_answer = asyncio.Event()

    async def principal(self, token: str, address: str) -> Principal | None:
        await self.may_answer.wait()
        return await super().principal(token, address)


async def test_so_much_may_wait_for_that_answer_and_no_more(
    valkey: RunningServer, transports: Transports
) -> None:
    slow = Slow()
    said = {"id": 1, "authenticate": {"token": slow.issue("ann")}}
    pad = {"id": "x" * 30_000, "unsubscribe": {"channel": "all"}}
    async with guarded(valkey, transports, slow) as gateway:
        async with talk(gateway.port) as much, talk(gateway.port) as little:
            await much.say(said, pad, pad, pad)
            assert await much.closed() == (4503, "too many")
            await little.say(said, pad, pad)
            slow.may_answer.set()
            assert "authenticated" in await little.hear()
            assert [(await little.hear())["error"]["code"] for _ in range(2)] == ["bad-frame"] * 2
        await gateway.empty()


async def test_so_many_may_wait_for_that_answer_however_small_they_are(
    valkey: RunningServer, transports: Transports
) -> None:
    slow = Slow()
    async with guarded(valkey, transports, slow) as gateway:
        async with talk(gateway.port) as stranger:
            await stranger.say({"id": 1, "authenticate": {"token": slow.issue("ann")}})
            for _ in range(300):
                stranger.write(Opcode.TEXT, b"")
            assert await stranger.closed() == (4503, "too many")
        await gateway.empty()


@pytest.mark.parametrize(
    "frame",
    [
        {"id": 1, "subscribe": {"channel": "all"}},
        {"id": 1, "command": {"path": "/orders"}},
        {"id": 1, "refresh": {"token": "t"}},
        {"id": 1, "authenticate": {"token": "nobody's"}},
        {"id": 1, "authenticate": {"ticket": "nobody's"}},
        {"id": 1, "authenticate": {}},
        {"id": 1, "hello": {}},
    ],
)
async def test_any_other_first_frame_is_the_last_one(gateway: Serving, frame: Any) -> None:
    async with talk(gateway.port, "?channel=all") as stranger:
        assert "error" in await stranger.ask(frame)
        assert await stranger.closed() == (4501, "unauthorized")
    await gateway.empty()


async def test_who_says_nothing_is_closed(
    valkey: RunningServer, transports: Transports, register: Register
) -> None:
    async with (
        guarded(valkey, transports, register, first_frame=Seconds(0.2)) as gateway,
        talk(gateway.port, "?channel=all") as silent,
    ):
        assert await silent.closed() == (4501, "unauthorized")


async def test_who_has_said_who_it_is_may_wait_for_that_to_be_found_out(
    valkey: RunningServer, transports: Transports
) -> None:
    slow = Slow()
    async with (
        guarded(valkey, transports, slow, first_frame=Seconds(0.2)) as gateway,
        talk(gateway.port) as ann,
        talk(gateway.port) as silent,
    ):
        await ann.say({"id": 1, "authenticate": {"token": slow.issue("ann")}})
        assert await silent.closed() == (4501, "unauthorized")
        slow.may_answer.set()
        assert "authenticated" in await ann.hear()


async def test_who_it_is_may_be_said_together_with_the_handshake(valkey: RunningServer) -> None:
    slow = Slow()
    shown = json.dumps({"id": 1, "authenticate": {"token": slow.issue("ann")}}).encode()
    request = REQUEST.replace(b"/ws", b"/ws?channel=own:ann") + frame(Opcode.TEXT, shown)
    async with (
        guarded(valkey, DETACHED, slow, first_frame=Seconds(0.2)) as gateway,
        raw(gateway.port, request) as (reader, _),
        talk(gateway.port) as silent,
    ):
        assert await silent.closed() == (4501, "unauthorized")
        slow.may_answer.set()
        async with asyncio.timeout(30):
            assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
            assert b"authenticated" in await reader.readuntil(b"}}")
            assert b"subscribed" in await reader.readuntil(b"}}")


@pytest.mark.parametrize(
    "early",
    [b"", frame(Opcode.CLOSE, b"\x03\xe8"), b"\x81\x01x", frame(Opcode.PING, b"")],
    ids=["nothing", "close", "unmasked", "ping"],
)
@pytest.mark.parametrize("stays", [True, False], ids=["stays", "resets"])
async def test_who_is_refused_may_be_gone_already(
    valkey: RunningServer,
    register: Register,
    early: bytes,
    stays: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    request = REQUEST.replace(b"/ws", b"/ws?ticket=nobodys") + early
    async with guarded(valkey, DETACHED, register) as gateway:
        for _ in range(1 if stays else 20):
            async with raw(gateway.port, request) as (reader, _):
                if stays:
                    async with asyncio.timeout(30):
                        assert b"unauthorized" in await reader.readuntil(b"}}")
        await gateway.empty()
        await gateway.ended()
    assert not [each for each in caplog.records if each.levelname == "ERROR"]


async def test_who_is_let_in_without_credentials_may_show_some_later(
    valkey: RunningServer, transports: Transports, register: Register
) -> None:
    async with (
        guarded(valkey, transports, register, anonymous=True) as gateway,
        talk(gateway.port, "?channel=all") as ann,
    ):
        assert (await ann.hear())["subscribed"]["channel"] == "all"
        refused = await ann.ask({"id": 1, "subscribe": {"channel": "own:ann"}})
        assert refused["error"]["code"] == "unauthorized"
        await ann.say({"id": 2, "authenticate": {"token": register.issue("ann")}})
        assert (await ann.hear())["authenticated"]["principal"]["id"] == "ann"
        assert (await ann.subscribe("own:ann"))["recovered"]
        again = await ann.ask({"id": 3, "authenticate": {"token": register.issue("bob")}})
        assert again["error"]["code"] == "bad-frame"


async def test_who_says_who_it_is_counts_as_that_one_from_then_on(
    valkey: RunningServer, transports: Transports, register: Register
) -> None:
    def bounded(config: Config) -> Config:
        quotas = QuotasConfig(connections_per_principal=1, connections_per_ip=2)
        return msgspec.structs.replace(secured(config), quotas=quotas)

    said = {"id": 1, "authenticate": {"token": register.issue("ann")}}
    async with serving(valkey, transports, change=bounded, sources=[register]) as gateway:
        async with talk(gateway.port) as ann, talk(gateway.port) as again:
            assert (await ann.ask(said))["authenticated"]
            assert (await again.ask(said))["error"]["code"] == "quota-exceeded"
            assert (await again.closed())[0] == 4000
            async with talk(gateway.port, "?channel=all") as bob:
                token = register.issue("bob")
                assert (await bob.ask({"id": 1, "authenticate": {"token": token}}))["authenticated"]
                assert (await bob.hear())["subscribed"]
        await gateway.empty()

        async def may_again() -> bool:
            async with talk(gateway.port) as ann:
                return "authenticated" in await ann.ask(said)

        await eventually(may_again, within=30, reason="its place was given back")


async def test_what_was_asked_for_before_counts_for_who_it_turns_out_to_be(
    valkey: RunningServer, transports: Transports, register: Register
) -> None:
    def bounded(config: Config) -> Config:
        queue = QueueConfig(wait=Seconds(5))
        slowly = LimitConfig(
            name="slowly", per=[Per.IP], of=Of.CONNECTIONS, rate=Frequency(1), queue=queue
        )
        return msgspec.structs.replace(
            secured(config, anonymous=True),
            quotas=QuotasConfig(subscriptions_per_ip=1),
            limits=[slowly],
        )

    async with (
        serving(valkey, transports, change=bounded, sources=[register]) as gateway,
        talk(gateway.port) as ann,
    ):
        for number, channel in enumerate(("all", "own:ann", "staff")):
            wish = {"id": number, "subscribe": {"channel": channel}}
            ann.write(Opcode.TEXT, msgspec.json.encode(wish))
        said = {"id": 3, "authenticate": {"token": register.issue("ann", roles=("staff",))}}
        ann.write(Opcode.TEXT, msgspec.json.encode(said))
        answers = [await ann.hear() for _ in range(4)]
        assert ["subscribed" in each for each in answers] == [True, False, False, False]
        assert answers[3]["authenticated"]
        refused = await ann.ask({"id": 4, "subscribe": {"channel": "own:ann"}})
        assert refused["error"]["code"] == "quota-exceeded"


async def test_a_header_says_who_it_is_on_either_transport(
    gateway: Serving, register: Register
) -> None:
    shown = list(bearing(register.issue("ann")).items())
    async with talk(gateway.port, "?channel=own:ann", additional_headers=dict(shown)) as ann:
        assert (await ann.hear())["subscribed"]
    async with http_stream(gateway.port, "/sse?channel=own:ann", shown) as stream:
        assert stream.response.status_code == 200
    async with http_stream(gateway.port, "/sse?channel=own:bob", shown) as stream:
        assert stream.response.status_code == 403
    async with http_stream(gateway.port, "/sse?channel=own:ann", []) as stream:
        assert stream.response.status_code == 401


async def test_a_ticket_opens_one_connection(gateway: Serving, register: Register) -> None:
    token = register.issue("ann")
    first = await ticket(gateway, token)
    async with http_stream(gateway.port, f"/sse?channel=own:ann&ticket={first}", []) as stream:
        assert stream.response.status_code == 200
    async with http_stream(gateway.port, f"/sse?channel=own:ann&ticket={first}", []) as stream:
        assert stream.response.status_code == 401
        assert first.encode() not in await stream.read()
    second = await ticket(gateway, token)
    async with talk(gateway.port, f"?channel=own:ann&ticket={second}") as ann:
        assert (await ann.hear())["subscribed"]
    async with talk(gateway.port, f"?channel=own:ann&ticket={second}") as ann:
        assert (await ann.hear())["error"]["status"] == 401
        assert await ann.closed() == (4501, "unauthorized")


async def test_of_many_who_come_with_one_ticket_at_once_one_gets_in(
    gateway: Serving, register: Register
) -> None:
    one = await ticket(gateway, register.issue("ann"))

    async def come() -> int:
        async with http_stream(gateway.port, f"/sse?channel=all&ticket={one}", []) as stream:
            return int(stream.response.status_code)

    answers = await asyncio.gather(*(come() for _ in range(20)))
    assert sorted(answers) == [200] + [401] * 19


async def test_a_ticket_is_good_on_every_node_and_is_kept_hashed(
    valkey: RunningServer, transports: Transports, register: Register
) -> None:
    shared = f"shared-{secrets.token_hex(4)}"
    async with (
        guarded(valkey, transports, register, namespace=shared) as here,
        guarded(valkey, transports, register, namespace=shared) as there,
    ):
        issued = await ticket(here, register.issue("ann"))
        (kept,) = await here.redis.keys(f"*{shared}*ticket*")
        assert issued.encode() not in kept
        assert 0 < await here.redis.pttl(kept) <= 30_000
        async with talk(there.port, f"?channel=own:ann&ticket={issued}") as ann:
            assert (await ann.hear())["subscribed"]


async def test_a_ticket_for_channels_is_for_nothing_else(
    gateway: Serving, register: Register
) -> None:
    narrow = await ticket(gateway, register.issue("ann"), "own:ann")
    async with talk(gateway.port, f"?ticket={narrow}") as ann:
        assert await ann.subscribe("own:ann")
        assert (await ann.ask({"id": 2, "subscribe": {"channel": "all"}}))["error"]["status"] == 403
        command = {"id": 3, "command": {"path": "/orders", "data": {}}}
        assert (await ann.ask(command))["error"]["status"] == 403
        await ann.ask({"id": 4, "refresh": {"token": register.issue("ann")}})
        assert (await ann.ask({"id": 5, "subscribe": {"channel": "all"}}))["error"]["status"] == 403


async def test_what_the_tickets_of_one_principal_take_is_bounded(
    gateway: Serving, register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann, bob = register.issue("ann"), register.issue("bob")
    monkeypatch.setattr(tickets, "MAX_TAKEN", 3 * tickets.OVERHEAD + 1000)
    answers = [await ask(gateway, "POST", "/tickets", headers=bearing(ann)) for _ in range(9)]
    codes = [each.status_code for each in answers]
    assert codes == sorted(codes)
    assert set(codes) == {201, 429}
    assert 0 < int(answers[-1].headers["retry-after"]) <= 30
    await ticket(gateway, bob)
    for key in await gateway.redis.keys("*issued*"):
        await gateway.redis.pexpire(key, 1)  # as when the time is over
    await eventually(lambda: issued(gateway, ann), reason="there may be more")


async def issued(gateway: Serving, token: str) -> bool:
    """Ask for a ticket, and return whether there was one."""
    answer = await ask(gateway, "POST", "/tickets", headers=bearing(token))
    return answer.status_code == 201


async def test_only_somebody_gets_a_ticket(gateway: Serving, register: Register) -> None:
    nobody = await ask(gateway, "POST", "/tickets")
    assert nobody.status_code == 401
    for body in ("[]", '{"channels": 1}', '{"channels": ["a b"]}', '{"wish": 1}', "{"):
        headers = bearing(register.issue("ann"))
        wrong = await ask(gateway, "POST", "/tickets", content=body, headers=headers)
        assert wrong.status_code == 400, body
    spent = await ticket(gateway, register.issue("ann"))
    assert (await ask(gateway, "POST", f"/tickets?ticket={spent}")).status_code == 401
    assert (await ask(gateway, "POST", f"/orders?ticket={spent}", json={})).status_code == 401


async def test_a_cookie_counts_where_a_page_that_may_use_it_sends_it(
    gateway: Serving, register: Register
) -> None:
    cookie = {"Cookie": f"theme=dark; session={register.issue('ann')}"}
    own = {**cookie, "Origin": f"http://127.0.0.1:{gateway.port}"}
    other = {**cookie, "Origin": "http://evil.example"}
    host = {"Host": f"127.0.0.1:{gateway.port}"}
    async with talk(gateway.port, "?channel=own:ann", additional_headers=own) as ann:
        assert (await ann.hear())["subscribed"]
    with pytest.raises(InvalidStatus) as refused:
        async with talk(gateway.port, "?channel=own:ann", additional_headers=other):
            pass
    assert refused.value.response.status_code == 403
    for headers, status in (
        (own | host, 200),
        (cookie | {"Sec-Fetch-Site": "same-origin"}, 200),
        (other, 403),
        (cookie | {"Sec-Fetch-Site": "cross-site"}, 401),
    ):
        answer = await ask(gateway, "GET", "/channels/own:ann/history", headers=headers)
        assert answer.status_code == status, headers
    assert (await ask(gateway, "POST", "/orders", json={}, headers=own)).status_code == 202
    assert (await ask(gateway, "POST", "/orders", json={}, headers=other)).status_code == 403


async def test_a_connection_ends_with_its_token(gateway: Serving, register: Register) -> None:
    token = register.issue("ann", lasts=1)
    shown = list(bearing(token).items())
    async with (
        talk(gateway.port, additional_headers=dict(shown)) as ann,
        http_stream(gateway.port, "/sse?channel=own:ann", shown) as stream,
    ):
        told = (await ann.hear())["authenticated"]
        assert told["principal"]["id"] == "ann"
        assert 0 < told["expires_in_ms"] <= 1000
        assert await ann.subscribe("own:ann")
        goodbye = await ann.hear()
        assert goodbye["goodbye"]["code"] == 4003
        assert await ann.closed() == (4003, "token expired")
        said = await EventStreamSubscriber(stream).end()
        assert said.code == 4003
    await gateway.empty()
    assert len(gateway.gateway.hub.expiry) == 0


async def test_who_refreshes_in_time_stays(gateway: Serving, register: Register) -> None:
    short, long = register.issue("ann", lasts=1), register.issue("ann", lasts=600)
    async with (
        talk(gateway.port, additional_headers=bearing(short)) as ann,
        talk(gateway.port, additional_headers=bearing(short)) as control,
    ):
        assert (await ann.hear())["authenticated"]
        assert await ann.subscribe("own:ann")
        said = await ann.ask({"id": 2, "refresh": {"token": long}})
        assert said["refreshed"]["principal"]["id"] == "ann"
        assert said["refreshed"]["expires_in_ms"] > 500_000
        assert await control.closed() == (4003, "token expired")
        await gateway.publish("own:ann", 1)
        assert await ann.events(1) == [1]


async def test_a_ticket_refreshes_too(gateway: Serving, register: Register) -> None:
    async with talk(gateway.port, additional_headers=bearing(register.issue("ann"))) as ann:
        fresh = await ticket(gateway, register.issue("ann", lasts=600))
        said = await ann.ask({"id": 2, "refresh": {"ticket": fresh}})
        assert said["refreshed"]["expires_in_ms"] > 500_000


async def test_nobody_refreshes_with_what_is_somebody_elses(
    gateway: Serving, register: Register
) -> None:
    async with talk(gateway.port, additional_headers=bearing(register.issue("ann"))) as ann:
        other = await ann.ask({"id": 2, "refresh": {"token": register.issue("bob")}})
        assert other["error"]["status"] == 403
        wrong = await ann.ask({"id": 3, "refresh": {"token": "nobody's"}})
        assert wrong["error"]["status"] == 401
        assert (await ann.subscribe("own:ann"))["recovered"]


async def test_with_other_roles_subscriptions_are_judged_anew(
    gateway: Serving, register: Register
) -> None:
    staff = register.issue("ann", roles=("staff",))
    async with talk(gateway.port, additional_headers=bearing(staff)) as ann:
        await ann.subscribe("staff")
        await ann.subscribe("own:ann")
        await ann.say({"id": 2, "refresh": {"token": register.issue("ann")}})
        assert (await ann.hear())["refreshed"]
        gone = (await ann.hear())["unsubscribed"]
        assert (gone["channel"], gone["error"]["code"]) == ("staff", "forbidden")
        await gateway.publish("staff", 1)
        await gateway.publish("own:ann", 2)
        assert await ann.events(1) == [2]


OPERATOR = bearing("operator")


async def block(gateway: Serving, **wish: str) -> dict[str, Any]:
    answer = await ask(gateway, "POST", "/admin/blocks", json=wish, headers=OPERATOR)
    assert answer.status_code == 201, answer.text
    told: dict[str, Any] = answer.json()
    return told


@pytest.mark.parametrize("by_name", [False, True], ids=["by id", "by name"])
async def test_who_is_blocked_is_closed_on_every_node_and_comes_in_at_none(
    valkey: RunningServer, transports: Transports, register: Register, by_name: bool
) -> None:
    shared = f"shared-{secrets.token_hex(4)}"
    token, bob = register.issue("ann"), register.issue("bob")
    whom = register.of(token).name if by_name else "ann"
    shown = list(bearing(token).items())
    async with (
        guarded(valkey, transports, register, namespace=shared) as here,
        guarded(valkey, transports, register, namespace=shared) as there,
        talk(here.port, "?channel=all", additional_headers=dict(shown)) as near,
        talk(there.port, "?channel=all", additional_headers=dict(shown)) as far,
        http_stream(there.port, "/sse?channel=all", shown) as stream,
        talk(there.port, "?channel=all", additional_headers=bearing(bob)) as other,
    ):
        waiting = await ticket(here, token)
        for each in (near, far, other):
            assert (await each.hear())["subscribed"]
        told = await block(here, principal=whom, reason="spam")
        async with asyncio.timeout(1):
            assert await near.closed() == (4502, "forbidden")
            assert await far.closed() == (4502, "forbidden")
            assert (await EventStreamSubscriber(stream).end()).code == 4502
        for gateway in (here, there):
            history = await ask(gateway, "GET", "/channels/all/history", headers=dict(shown))
            assert history.status_code == 403
            assert "spam" not in history.text
            async with talk(gateway.port, additional_headers=dict(shown)) as again:
                assert await again.closed() == (4502, "forbidden")
        async with talk(there.port, f"?ticket={waiting}") as again:
            assert await again.closed() == (4502, "forbidden")
        await there.publish("all", 1)
        assert await other.events(1) == [1]
        lifted = await ask(there, "DELETE", f"/admin/blocks/{told['id']}", headers=OPERATOR)
        assert lifted.status_code == 204

        async def may_again() -> bool:
            answer = await ask(here, "GET", "/channels/all/history", headers=dict(shown))
            return answer.status_code == 200

        await eventually(may_again, within=30, reason="the block was lifted")


async def test_a_revoked_token_is_of_no_use_and_its_owner_comes_with_another(
    gateway: Serving, register: Register
) -> None:
    lost, new = register.issue("ann"), register.issue("ann")
    async with (
        talk(gateway.port, additional_headers=bearing(lost)) as thief,
        talk(gateway.port, "?channel=all", additional_headers=bearing(new)) as ann,
    ):
        assert await thief.subscribe("all")
        assert (await ann.hear())["subscribed"]
        await block(gateway, token_id=register.of(lost).token_id, **{"for": "1h"})
        assert await thief.closed() == (4501, "unauthorized")
        await gateway.publish("all", 1)
        assert await ann.events(1) == [1]
        refused = await ask(gateway, "POST", "/tickets", headers=bearing(lost))
        assert refused.status_code == 401


async def test_a_block_ends_by_itself(gateway: Serving, register: Register) -> None:
    shown = bearing(register.issue("ann"))
    await block(gateway, principal="ann", **{"for": "300ms"})
    assert (await ask(gateway, "POST", "/tickets", headers=shown)).status_code == 403

    async def may_again() -> bool:
        return (await ask(gateway, "POST", "/tickets", headers=shown)).status_code == 201

    await eventually(may_again, within=30, reason="the block was over")
    listed = await ask(gateway, "GET", "/admin/blocks", headers=OPERATOR)
    assert listed.json() == {"blocks": []}


async def test_a_node_that_starts_later_knows_the_blocks(
    valkey: RunningServer, transports: Transports, register: Register
) -> None:
    shared = f"shared-{secrets.token_hex(4)}"
    shown = bearing(register.issue("ann"))
    async with guarded(valkey, transports, register, namespace=shared) as first:
        await block(first, principal="ann")
    async with guarded(valkey, transports, register, namespace=shared) as second:
        assert (await ask(second, "POST", "/tickets", headers=shown)).status_code == 403


async def test_operators_see_connections_and_close_them_wherever_they_are(
    valkey: RunningServer, transports: Transports, register: Register
) -> None:
    shared = f"shared-{secrets.token_hex(4)}"
    token = register.issue("ann")
    async with (
        guarded(valkey, transports, register, namespace=shared) as here,
        guarded(valkey, transports, register, namespace=shared) as there,
        talk(here.port, additional_headers=bearing(token)) as ann,
        talk(there.port, additional_headers=bearing(register.issue("bob"))) as bob,
        talk(here.port) as nobody,
    ):
        await ann.subscribe("own:ann")
        await bob.subscribe("all")
        at_here = (await ask(here, "GET", "/admin/connections", headers=OPERATOR)).json()
        assert at_here["node"] == here.gateway.revocation.node
        assert at_here["total"] == 2
        seen, unknown = at_here["connections"]
        name = register.of(token).name
        assert seen["principal"] == {"id": "ann", "type": "user", "name": name}
        assert (seen["channels"], seen["address"]) == (["own:ann"], "127.0.0.1")
        assert (seen["transport"], seen["unsent_bytes"]) == ("websocket", 0)
        assert unknown["principal"]["id"] == "unknown"
        for query, count in (
            ("principal=ann", 1),
            (f"principal={quote(name)}", 1),
            ("principal=bob", 0),
            ("channel=own:ann", 1),
            ("channel=all", 0),
        ):
            found = await ask(here, "GET", f"/admin/connections?{query}", headers=OPERATOR)
            assert found.json()["total"] == count, query
        (far,) = (await ask(there, "GET", "/admin/connections", headers=OPERATOR)).json()[
            "connections"
        ]
        for id, status in ((seen["id"], 204), (far["id"], 202), ("x-y", 404), (seen["id"], 404)):
            closed = await ask(here, "DELETE", f"/admin/connections/{id}", headers=OPERATOR)
            assert closed.status_code == status, id
        assert await ann.closed() == (4000, "shutdown")
        assert await bob.closed() == (4000, "shutdown")
        assert (await nobody.ask({"id": 1, "subscribe": {"channel": "all"}}))["error"]
