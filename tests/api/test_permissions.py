"""What callers may do, through the doors: commands, their outcomes, channels, histories, events."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from typing import Any

import pytest
from websockets.asyncio.client import connect

from gateway import Command, Event, handles
from gateway.config import (
    BrokerConfig,
    ChannelConfig,
    CommandConfig,
    Config,
    EventsConfig,
    FeedConfig,
    HistoryConfig,
)
from tests.api.stand import Stand, problem, standing
from tests.identities import Register, Secured
from tests.servers import RunningServer

pytestmark = pytest.mark.anyio


@handles("order.place")
async def place(command: Command[Any]) -> Event:
    seen = {"by": command.authid, "as": command.authtype, "claims": command.claims}
    return Event("order.placed", data=seen | {"customer": command.data["customer"]})


@pytest.fixture(scope="module")
def register() -> Register:
    return Register()


@pytest.fixture(scope="module")
async def api(valkey: RunningServer, register: Register) -> AsyncIterator[Stand]:
    config = Config(
        broker=BrokerConfig(url=valkey.url, namespace=f"p-{secrets.token_hex(4)}", partitions=2),
        auth=Secured(claims=["tier"]),
        events=EventsConfig(tokens=["producer"]),
        commands=[
            CommandConfig(
                path="/orders",
                type="order.place",
                stream="orders",
                allow="principal.id == data.customer",
            ),
            CommandConfig(path="/closed", type="closed", stream="orders"),
        ],
        channels=[
            ChannelConfig(
                pattern="orders:{customer}",
                history=HistoryConfig(),
                subscribe="principal.id == customer",
                publish="'shop' in principal.roles",
            ),
            ChannelConfig(
                pattern="desk:{customer}",
                history=HistoryConfig(allow="'desk' in principal.roles"),
                subscribe="true",
                publish="'shop' in principal.roles",
            ),
        ],
        feeds=[FeedConfig(type="order.*", channels=["'orders:' + data.customer"])],
    )
    async with standing(config, place, sources=[register]) as stand:
        yield stand


def showing(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


async def order(api: Stand, token: str, customer: str, **headers: str) -> Any:
    return await api.post(
        "/orders", json.dumps({"customer": customer}), **showing(token), **headers
    )


async def test_a_command_is_for_whom_its_rule_allows(api: Stand, register: Register) -> None:
    anna = register.issue("anna", claims={"tier": "gold", "email": "a@example.org"})
    assert (await order(api, anna, "anna")).status_code == 202
    assert "send order.place" in problem(await order(api, anna, "bert"), 403, "forbidden")
    problem(await api.post("/closed", "{}", **showing(anna)), 403, "forbidden")
    problem(await api.post("/orders", '{"customer":"anna"}'), 401, "unauthorized")


async def test_handlers_learn_who_sent_a_command_and_the_claims_that_may_travel(
    api: Stand, register: Register
) -> None:
    cleo = register.issue("cleo", claims={"tier": "gold", "email": "c@example.org"})
    answer = await order(api, cleo, "cleo", prefer="wait=30")
    assert answer.json()["status"] == "succeeded"
    history = await api.http.get("/channels/orders:cleo/history", headers=showing(cleo))
    (event,) = history.json()
    assert event["data"] == {
        "by": "cleo",
        "as": "user",
        "claims": {"tier": "gold"},
        "customer": "cleo",
    }
    assert (event["authid"], event["authtype"]) == ("cleo", "user")
    assert "example.org" not in history.text


async def test_what_came_of_a_command_is_for_its_sender_alone(
    api: Stand, register: Register
) -> None:
    dora, emil = register.issue("dora"), register.issue("emil")
    id = (await order(api, dora, "dora", prefer="wait=30")).json()["id"]
    mine = await api.http.get(f"/commands/{id}", headers=showing(dora))
    assert mine.json()["id"] == id
    theirs = await api.http.get(f"/commands/{id}", headers=showing(emil))
    nobodys = await api.http.get(f"/commands/{id[::-1]}", headers=showing(emil))
    one, other = problem(theirs, 404, "unknown-command"), problem(nobodys, 404, "unknown-command")
    assert one.replace(id, "") == other.replace(id[::-1], "")

    for path in (f"/channels/commands:{id}/history", f"/sse?channel=commands:{id}"):
        problem(await api.http.get(path, headers=showing(emil)), 403, "forbidden")
    told = await api.http.get(f"/channels/commands:{id}/history", headers=showing(dora))
    assert told.json()[0]["type"] == "command.accepted"


async def test_a_frame_subscribes_to_ones_own_commands_alone(
    api: Stand, register: Register
) -> None:
    fred, gina = register.issue("fred"), register.issue("gina")
    id = (await order(api, fred, "fred")).json()["id"]
    wish = json.dumps({"id": 1, "subscribe": {"channel": f"commands:{id}", "after": "earliest"}})
    url = f"ws://127.0.0.1:{api.port}/ws"
    async with connect(url, additional_headers=showing(gina)) as socket:
        await socket.send(wish)
        assert json.loads(await socket.recv())["error"]["code"] == "forbidden"
    async with connect(url, additional_headers=showing(fred)) as socket:
        await socket.send(wish)
        assert json.loads(await socket.recv())["subscribed"]["channel"] == f"commands:{id}"
        assert json.loads(await socket.recv())["event"]["type"] == "command.accepted"


async def test_whose_many_commands_are_is_asked_in_one_call(api: Stand, register: Register) -> None:
    """Each would otherwise cost the broker a call, and one address could open the circuit."""

    async def calls() -> int:
        stats = await api.broker.blocking().info("commandstats")
        found: int = stats["cmdstat_evalsha"]["calls"]
        return found

    judy = register.issue("judy")
    ids = [(await order(api, judy, "judy")).json()["id"] for _ in range(2)]
    others = [f"none-{number}" for number in range(48)]
    url = f"ws://127.0.0.1:{api.port}/ws"
    for names, said in (
        ([*ids, *others], "forbidden"),
        ([*ids, *others, "one-more"], "too-many-subscriptions"),
        (ids, None),
    ):
        query = "&".join(f"channel=commands:{id}" for id in names)
        before = await calls()
        async with connect(f"{url}?{query}", additional_headers=showing(judy)) as socket:
            answer = json.loads(await socket.recv())
        assert answer.get("error", {}).get("code") == said
        assert await calls() - before < 20  # whatever else goes on


async def test_commands_over_websocket_are_judged_likewise(api: Stand, register: Register) -> None:
    hans = register.issue("hans")
    async with connect(f"ws://127.0.0.1:{api.port}/ws", additional_headers=showing(hans)) as socket:
        for customer, found in (("ines", "error"), ("hans", "accepted")):
            command = {"path": "/orders", "data": {"customer": customer}}
            await socket.send(json.dumps({"id": customer, "command": command}))
            assert found in json.loads(await socket.recv())


async def test_an_idempotency_key_is_each_senders_own(api: Stand, register: Register) -> None:
    jana, karl = register.issue("jana"), register.issue("karl")
    first = await order(api, jana, "jana", idempotency_key="k-1")
    again = await order(api, jana, "jana", idempotency_key="k-1")
    other = await order(api, karl, "karl", idempotency_key="k-1")
    assert first.json()["id"] == again.json()["id"] != other.json()["id"]
    assert other.status_code == 202


async def test_a_channel_is_for_whom_its_rules_allow(api: Stand, register: Register) -> None:
    lena, max = register.issue("lena"), register.issue("max")
    for path in ("/sse?channel=orders:lena", "/channels/orders:lena/history"):
        problem(await api.http.get(path, headers=showing(max)), 403, "forbidden")
        problem(await api.http.get(path), 401, "unauthorized")
    found = await api.http.get("/channels/orders:lena/history", headers=showing(lena))
    assert found.json() == []


async def test_who_may_not_read_a_history_resumes_and_no_more(
    api: Stand, register: Register
) -> None:
    jana, desk = register.issue("jana"), register.issue("desk", roles=("desk",))
    await publish(api, moved("jana", channel="desk:jana"), register.issue("s-1", roles=("shop",)))
    url, sse = f"ws://127.0.0.1:{api.port}/ws", "/sse?channel=desk:jana"
    path = "/channels/desk:jana/history"
    problem(await api.http.get(path, headers=showing(jana)), 403, "forbidden")
    found = await api.http.get(path, headers=showing(desk))
    assert len(found.json()) == 1
    epoch, ms, _ = found.headers["gateway-position"].split("-")

    refused = await api.http.get(f"{sse}&last_event_id=earliest", headers=showing(jana))
    assert "read the history of" in problem(refused, 403, "forbidden")
    async with connect(
        f"{url}?channel=desk:jana&after=earliest", additional_headers=showing(jana)
    ) as socket:
        assert json.loads(await socket.recv())["error"]["code"] == "forbidden"
    for token, after, recovered, heard in (
        (desk, "earliest", True, True),
        (jana, f"{epoch}-{int(ms) - 400_000}-9999999999999999999", False, False),
        (jana, "abc-1-0", False, False),
    ):
        frame = {"id": 1, "subscribe": {"channel": "desk:jana", "after": after}}
        async with connect(url, additional_headers=showing(token)) as socket:
            await socket.send(json.dumps(frame))
            answer = json.loads(await socket.recv())
            assert answer["subscribed"]["recovered"] == recovered
            if heard:
                assert "event" in json.loads(await socket.recv())
            else:
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(socket.recv(), 0.2)


async def test_events_go_to_the_channels_that_their_sender_may_publish_to(
    api: Stand, register: Register
) -> None:
    event = json.dumps(
        {
            "specversion": "1.0",
            "id": secrets.token_hex(4),
            "source": "/s",
            "type": "order.moved",
            "authid": "somebody else",
            "authtype": "system",
            "data": {"customer": "nora"},
        }
    )
    structured = {"content_type": "application/cloudevents+json"}
    nora, shop = register.issue("nora"), register.issue("s-1", roles=("shop",))
    refused = await api.post("/events", event, **structured, **showing(nora))
    assert "publish to the channel orders:nora" in problem(refused, 403, "forbidden")
    problem(await api.post("/events", event, **structured), 401, "unauthorized")
    assert (await api.post("/events", event, **structured, **showing(shop))).status_code == 202
    history = await api.http.get("/channels/orders:nora/history", headers=showing(nora))
    (published,) = history.json()
    assert (published["authid"], published["authtype"]) == ("s-1", "user")


def moved(customer: str, **more: Any) -> str:
    event = {
        "specversion": "1.0",
        "id": secrets.token_hex(4),
        "source": "/s",
        "type": "order.moved",
    }
    return json.dumps(event | {"data": {"customer": customer}} | more)


async def publish(api: Stand, event: str, token: str) -> Any:
    return await api.post(
        "/events", event, content_type="application/cloudevents+json", **showing(token)
    )


async def test_nobody_publishes_to_the_channel_of_a_command(api: Stand, register: Register) -> None:
    pia, shop = register.issue("pia"), register.issue("s-1", roles=("shop",))
    id = (await order(api, pia, "pia", prefer="wait=30")).json()["id"]
    for token in (pia, shop):
        for channel in (f"commands:{id}", "commands:made-up"):
            refused = await publish(api, moved("pia", channel=channel), token)
            assert channel in problem(refused, 403, "forbidden")
    told = await api.http.get(f"/channels/commands:{id}/history", headers=showing(pia))
    assert {each["type"].partition(".")[0] for each in told.json()} == {"command"}


async def test_nobody_uses_up_the_ids_of_anothers_events(api: Stand, register: Register) -> None:
    shops = [register.issue(f"s-{number}", roles=("shop",)) for number in range(2)]
    event = moved("quin")
    for token in (*shops, "producer"):
        assert (await publish(api, event, token)).status_code == 202
    other = json.dumps(json.loads(event) | {"subject": "another"})
    for token in (*shops, "producer"):
        problem(await publish(api, other, token), 422, "key-reused")


async def test_events_that_go_nowhere_leave_nothing_at_the_broker(
    api: Stand, register: Register
) -> None:
    redis = api.broker.blocking()
    names = f"{{{api.gateway.config.broker.namespace}}}:identity:*"
    before = await redis.keys(names)
    event = moved("rosa", type="unheard-of")
    assert (await publish(api, event, register.issue("rosa"))).status_code == 202
    assert await redis.keys(names) == before
    assert (await publish(api, moved("rosa"), "producer")).status_code == 202
    assert len(await redis.keys(names)) == len(before) + 1


async def test_who_shows_nothing_cannot_publish_as_somebody(valkey: RunningServer) -> None:
    config = Config(
        broker=BrokerConfig(url=valkey.url, namespace=f"p-{secrets.token_hex(4)}", partitions=2),
        auth=Secured(anonymous=True),
        channels=[
            ChannelConfig(pattern="wall", history=HistoryConfig(), subscribe="true", publish="true")
        ],
    )
    async with standing(config, sources=[Register()]) as api:
        event = moved("sven", channel="wall", authtype="user", authid="tina")
        structured = "application/cloudevents+json"
        assert (await api.post("/events", event, content_type=structured)).status_code == 202
        (published,) = (await api.http.get("/channels/wall/history")).json()
        assert published["data"] == {"customer": "sven"}
        assert not published.keys() & {"authtype", "authid"}


async def test_a_producer_with_a_token_of_its_own_may_publish_everything(
    api: Stand, register: Register
) -> None:
    event = json.dumps(
        {
            "specversion": "1.0",
            "id": secrets.token_hex(4),
            "source": "/s",
            "type": "order.moved",
            "authid": "olga",
            "authtype": "user",
            "data": {"customer": "olga"},
        }
    )
    sent = await api.post(
        "/events", event, content_type="application/cloudevents+json", **showing("producer")
    )
    assert sent.status_code == 202
    olga = register.issue("olga")
    history = await api.http.get("/channels/orders:olga/history", headers=showing(olga))
    assert history.json()[0]["authid"] == "olga"
