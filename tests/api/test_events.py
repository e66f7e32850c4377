"""Events over HTTP: who may publish, in which forms, and what channels retain."""

import base64
import json
from collections.abc import Mapping
from typing import Any

import httpx
import msgspec
import pytest

from gateway.api.cloudevents import MAX_BATCH
from gateway.broker.keys import Keys
from gateway.config import Config, EventsConfig, FeedConfig
from gateway.settings import Bytes
from tests.api.conftest import TOKEN, config_of
from tests.api.stand import Stand, problem, standing
from tests.servers import RunningServer

BEARER = {"authorization": f"Bearer {TOKEN}"}
STRUCTURED = {**BEARER, "content-type": "application/cloudevents+json"}
BATCH = {**BEARER, "content-type": "application/cloudevents-batch+json"}
BINARY = {
    **BEARER,
    "ce-specversion": "1.0",
    "ce-id": "1",
    "ce-source": "/tests",
    "ce-type": "t",
}
EVENT: dict[str, Any] = {"specversion": "1.0", "id": "1", "source": "/tests", "type": "t"}


@pytest.fixture(autouse=True)
async def _unknown(api: Stand) -> None:
    """No event is taken for a repetition of another test's."""
    redis: Any = api.broker.blocking()
    keys = Keys(api.gateway.config.broker.namespace)
    known = [name async for name in redis.scan_iter(match=keys.identity("*"))]
    if known:
        await redis.delete(*known)


async def publish(api: Stand, headers: Mapping[str, str], content: Any = b"") -> httpx.Response:
    if isinstance(content, dict | list):
        content = json.dumps(content).encode()
    return await api.http.post("/events", content=content, headers=headers)


async def published(api: Stand, headers: Mapping[str, str], content: Any = b"") -> dict[str, Any]:
    """Publish one event that is in order, and return what subscribers get."""
    answer = await publish(api, headers, content)
    assert answer.status_code == 202, answer.text
    return (await history(api, "log"))[-1]


async def history(api: Stand, channel: str) -> list[dict[str, Any]]:
    answer = await api.http.get(f"/channels/{channel}/history", params={"limit": 1000})
    assert answer.status_code == 200, answer.text
    events: list[dict[str, Any]] = answer.json()
    return events


# --- Who may


@pytest.mark.parametrize(
    "authorization",
    [
        *(None, "", "Bearer", "Bearer wrong", f"Bearer {TOKEN}x", f"Basic {TOKEN}"),
        *(TOKEN, f"Bearer {TOKEN} {TOKEN}", f"Bearer {TOKEN.upper()}", "Bearer sés"),
    ],
)
async def test_who_has_no_token_may_not_publish(api: Stand, authorization: str | None) -> None:
    headers = {} if authorization is None else {b"authorization": authorization.encode()}
    answer = await api.http.post("/events", json=EVENT, headers=headers)
    assert "expected Authorization: Bearer" in problem(answer, 401, "unauthorized")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert TOKEN not in answer.text


@pytest.mark.parametrize("authorization", ["Bearer sesame", "bearer another", "BEARER  sesame"])
async def test_each_token_lets_its_owner_publish(api: Stand, authorization: str) -> None:
    answer = await publish(api, STRUCTURED | {"authorization": authorization}, EVENT)
    assert answer.status_code == 202


async def test_nobody_or_anybody_may_if_that_is_configured(
    valkey: RunningServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    config = config_of(valkey, tmp_path_factory.mktemp("events"))
    async with standing(_with(config, EventsConfig())) as api:
        detail = problem(await publish(api, STRUCTURED, EVENT), 403, "forbidden")
        assert detail == "this gateway takes events from nobody: [events] tokens is empty"
    async with standing(_with(config, EventsConfig(anonymous=True))) as api:
        headers = {"content-type": STRUCTURED["content-type"]}
        assert (await publish(api, headers, EVENT)).status_code == 202


def _with(config: Config, events: EventsConfig) -> Config:
    return msgspec.structs.replace(config, events=events)


# --- The three modes


async def test_a_structured_event_arrives_as_it_was_sent(api: Stand) -> None:
    event = EVENT | {
        "time": "2026-01-01T00:00:00.5+01:00",
        "subject": "s",
        "dataschema": "urn:x:y",
        "datacontenttype": "application/json; x=y",
        "partitionkey": "k",
        "traceparent": "00-x",
        "myext": "é",
        "mynumber": -5,
        "myflag": False,
        "data": {"a": [1, None, "é"]},
    }
    assert await published(api, STRUCTURED, event) == event | {"channel": "log"}


async def test_what_a_producer_leaves_out_is_filled_in(api: Stand) -> None:
    event = await published(api, STRUCTURED, EVENT | {"subject": None, "data": None})
    assert event.pop("time").endswith("Z")
    assert event == EVENT | {
        "data": None,
        "datacontenttype": "application/json",
        "channel": "log",
    }


async def test_a_batch_is_appended_in_its_order(api: Stand) -> None:
    events = [EVENT | {"id": f"b-{number}"} for number in range(50)]
    answer = await publish(api, BATCH, events)
    assert answer.json() == {"ids": [event["id"] for event in events]}
    assert [event["id"] for event in (await history(api, "log"))[-50:]] == answer.json()["ids"]
    assert (await publish(api, BATCH, [])).json() == {"ids": []}


@pytest.mark.parametrize(
    ("content_type", "body", "expected"),
    [
        ("application/json", b'{"a":1}', {"data": {"a": 1}}),
        ("application/vnd.x+json; charset=utf-8", b"[1]", {"data": [1]}),
        ("text/plain; charset=UTF-8", "é".encode(), {"data": "é"}),
        ("text/plain; charset=latin-1", b"\xe9", {"data_base64": "6Q=="}),
        ("image/png", b"\x89PNG\r\n", {"data_base64": base64.b64encode(b"\x89PNG\r\n").decode()}),
        ("text/plain", b"", {}),
    ],
)
async def test_a_binary_event_has_the_body_as_its_data(
    api: Stand, content_type: str, body: bytes, expected: dict[str, Any]
) -> None:
    event = await published(api, BINARY | {"content-type": content_type}, body)
    assert event.pop("time")
    assert event == EVENT | expected | {"datacontenttype": content_type, "channel": "log"}


async def test_a_binary_event_has_its_attributes_in_headers(api: Stand) -> None:
    headers = {
        "CE-Subject": "Euro %E2%82%AC %F0%9F%98%80",
        "ce-time": "2026-01-01T00:00:00Z",
        "ce-myext": '"a \\"quoted\\" word"',
        "ce-channel": "few/x",
    }
    answer = await publish(api, BINARY | headers)
    assert answer.status_code == 202, answer.text
    event = (await history(api, "few/x"))[-1]
    assert event == EVENT | {
        "subject": "Euro € 😀",
        "time": "2026-01-01T00:00:00Z",
        "myext": 'a "quoted" word',
        "channel": "few/x",
    }


async def test_an_event_that_names_its_channel_goes_there_and_nowhere_else(api: Stand) -> None:
    before = await history(api, "log")
    answer = await publish(api, STRUCTURED, EVENT | {"id": "named", "channel": "few/y"})
    assert answer.json() == {"ids": ["named"]}
    assert [event["id"] for event in await history(api, "few/y")] == ["named"]
    assert await history(api, "log") == before
    assert (await publish(api, STRUCTURED, EVENT | {"channel": "mute"})).status_code == 202


# --- Malformed

LONG = "x" * 41


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        ({"specversion": "0.3"}, 'expected "specversion": "1.0" but got \'0.3\''),
        ({"specversion": None}, 'expected "specversion": "1.0" but got None'),
        ({"specversion": 1.0}, 'expected "specversion": "1.0" but got 1.0'),
        ({"id": None}, "expected a CloudEvent with 'id'"),
        ({"source": None}, "expected a CloudEvent with 'source'"),
        ({"type": None}, "expected a CloudEvent with 'type'"),
        ({"id": ""}, "expected 'id' to be a non-empty string but got ''"),
        ({"type": 5}, "expected 'type' to be a non-empty string but got 5"),
        ({"id": "a\nb"}, r"expected no control characters in 'id' but got 'a\nb'"),
        ({"source": "not a uri"}, "expected 'source' to be a URI reference but got 'not a uri'"),
        ({"subject": ""}, "expected 'subject' to be a non-empty string but got ''"),
        ({"time": "yesterday"}, "expected 'time' as in RFC 3339 but got 'yesterday'"),
        ({"time": "2026-01-01T00:00:00"}, "expected 'time' as in RFC 3339 but got '2026-"),
        ({"time": "2026-02-30T00:00:00Z"}, "expected 'time' as in RFC 3339 but got '2026-"),
        ({"time": 5}, "expected 'time' to be a non-empty string but got 5"),
        ({"dataschema": "/relative"}, "expected 'dataschema' to be an absolute URI but got"),
        ({"datacontenttype": "json"}, "expected 'datacontenttype' to be a media type but got"),
        ({"Subject": "x"}, "attribute names of lower-case letters and digits but got 'Subject'"),
        ({"my_ext": "x"}, "attribute names of lower-case letters and digits but got 'my_ext'"),
        ({"": "x"}, "attribute names of lower-case letters and digits but got ''"),
        ({LONG: "x"}, f"attribute names of lower-case letters and digits but got '{LONG}'"),
        ({"ext": 1.5}, "a string, a boolean or a 32-bit integer but got 1.5"),
        ({"ext": 2**31}, "a string, a boolean or a 32-bit integer but got 2147483648"),
        ({"ext": {"a": 1}}, "a string, a boolean or a 32-bit integer but got {'a': 1}"),
        ({"ext": "\x1b[2J"}, r"expected no control characters in 'ext' but got '\x1b[2J'"),
        ({"correlationid": 5}, "expected 'correlationid' to be a non-empty string but got 5"),
        ({"channel": "a b"}, "expected a channel name of 1 to 255"),
        ({"channel": 5}, "expected 'channel' to be a non-empty string but got 5"),
        ({"data": 1, "data_base64": "AA=="}, "expected 'data' or 'data_base64' but got both"),
        ({"data_base64": "!"}, "expected 'data_base64' to be a string of Base64"),
        ({"data_base64": 5}, "expected 'data_base64' to be a string of Base64"),
        ({"data_base64": None}, "expected 'data_base64' to be a string of Base64"),
        ({"data_base64": "é"}, "expected 'data_base64' to be a string of Base64"),
    ],
)
async def test_an_event_against_the_specification_is_refused(
    api: Stand, change: dict[str, object], detail: str
) -> None:
    event = EVENT | change
    assert detail in problem(await publish(api, STRUCTURED, event), 400, "bad-request")
    batch = [EVENT | {"id": "fine"}, event]
    told = problem(await publish(api, BATCH, batch), 400, "bad-request")
    assert told.startswith("event 2 of 2: ")
    assert detail in told
    assert "fine" not in [event["id"] for event in await history(api, "log")]


@pytest.mark.parametrize(
    ("headers", "body", "status", "detail"),
    [
        (STRUCTURED, b"{", 400, "expected JSON"),
        (STRUCTURED, b"", 400, "expected JSON"),
        (STRUCTURED, [EVENT], 400, "expected a CloudEvent, a JSON object, but got [{"),
        (STRUCTURED, b'{"id":"1","id":"2"}', 400, "expected each member once but 'id' comes twice"),
        (BATCH, EVENT, 400, "expected an array of CloudEvents but got {"),
        (BATCH, [EVENT, 5], 400, "event 2 of 2: expected a CloudEvent, a JSON object, but got 5"),
        (BATCH, b"[", 400, "expected JSON"),
        (BINARY | {"ce-specversion": "2.0"}, b"", 400, 'expected "specversion": "1.0"'),
        (BINARY | {"ce-id": ""}, b"", 400, "expected 'id' to be a non-empty string"),
        (BINARY | {"ce-subject": "%FF"}, b"", 400, "expected percent-encoded UTF-8 in ce-subject"),
        (BINARY | {"ce-my-ext": "x"}, b"", 400, "lower-case letters and digits but got 'my-ext'"),
        (BINARY | {"ce-data": "x"}, b"", 400, "but got ce-data"),
        (BINARY | {"ce-datacontenttype": "a/b"}, b"", 400, "but got ce-datacontenttype"),
        (BINARY | {"content-type": "application/json"}, b"{", 400, "expected JSON"),
        (BINARY | {"content-type": "json"}, b"", 400, "expected 'datacontenttype' to be a media"),
        (
            BINARY | {"content-encoding": "br"},
            b"",
            415,
            "expected no Content-Encoding but got 'br'",
        ),
        (BINARY | {"content-type": "a/b+json; charset=utf-16"}, b"", 415, "expected UTF-8 but got"),
        (STRUCTURED | {"content-type": STRUCTURED["content-type"] + ";charset=x"}, EVENT, 415, "x"),
        (BEARER | {"content-type": "application/json"}, EVENT, 415, "ce- headers but got 'applic"),
        (BEARER | {"content-type": "application/cloudevents+xml"}, b"", 415, "but got 'applicatio"),
        (BEARER | {"ce-id": "1"}, b"", 415, "expected application/cloudevents+json, application/c"),
    ],
)
async def test_a_request_that_is_none_of_the_three_modes_is_refused(
    api: Stand, headers: dict[str, str], body: Any, status: int, detail: str
) -> None:
    code = {400: "bad-request", 415: "unsupported-media-type"}[status]
    assert detail in problem(await publish(api, headers, body), status, code)


async def test_a_batch_with_an_event_that_goes_nowhere_is_refused_whole(api: Stand) -> None:
    before = await history(api, "log")
    answer = await publish(api, BATCH, [EVENT, EVENT | {"channel": "unheard-of"}])
    assert "'unheard-of', which no configured pattern covers" in problem(answer, 422, "unroutable")
    assert await history(api, "log") == before


async def test_a_batch_and_a_body_have_their_limits(
    api: Stand, valkey: RunningServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    large = await publish(api, STRUCTURED, EVENT | {"data": "x" * 20_000})
    assert problem(large, 413, "payload-too-large")
    config = config_of(valkey, tmp_path_factory.mktemp("events"), max_body=Bytes(1 << 20))
    async with standing(config) as roomy:
        assert len((await publish(roomy, BATCH, [EVENT] * MAX_BATCH)).json()["ids"]) == MAX_BATCH
        detail = problem(await publish(roomy, BATCH, [EVENT] * (MAX_BATCH + 1)), 400, "bad-request")
        assert detail == "expected at most 1000 CloudEvents but got 1001"


# --- History


async def test_history_is_a_batch_with_the_position_to_go_on_from(api: Stand) -> None:
    for number in range(4):
        await publish(api, STRUCTURED, EVENT | {"id": f"h-{number}", "channel": "few/h"})
    answer = await api.http.get("/channels/few/h/history")
    assert answer.headers["content-type"] == "application/cloudevents-batch+json"
    assert answer.headers["gateway-recovered"] == "true"
    assert answer.headers["cache-control"] == "no-store"
    assert [event["id"] for event in answer.json()] == ["h-0", "h-1", "h-2", "h-3"]
    assert {event["channel"] for event in answer.json()} == {"few/h"}
    position = answer.headers["gateway-position"]
    await publish(api, STRUCTURED, EVENT | {"id": "h-4", "channel": "few/h"})
    news = await api.http.get("/channels/few%2Fh/history", params={"after": position})
    assert [event["id"] for event in news.json()] == ["h-4"]


async def test_history_can_be_read_in_pages(api: Stand) -> None:
    for number in range(5):
        await publish(api, STRUCTURED, EVENT | {"id": f"p-{number}", "channel": "few/p"})
    after = "earliest"
    pages: list[list[str]] = []
    while not pages or pages[-1]:
        answer = await api.http.get(
            "/channels/few/p/history", params={"after": after, "limit": "2"}
        )
        after = answer.headers["gateway-position"]
        pages.append([event["id"] for event in answer.json()])
    assert pages == [["p-0", "p-1"], ["p-2", "p-3"], ["p-4"], []]


async def test_history_says_that_something_before_it_is_gone(api: Stand) -> None:
    await publish(api, STRUCTURED, EVENT | {"id": "g-0", "channel": "few/g"})
    first = await api.http.get("/channels/few/g/history")
    for number in range(1, 8):
        await publish(api, STRUCTURED, EVENT | {"id": f"g-{number}", "channel": "few/g"})
    params = {"after": first.headers["gateway-position"]}
    answer = await api.http.get("/channels/few/g/history", params=params)
    assert answer.headers["gateway-recovered"] == "false"
    assert [event["id"] for event in answer.json()] == ["g-3", "g-4", "g-5", "g-6", "g-7"]
    foreign = await api.http.get("/channels/few/g/history", params={"after": "another-1-1"})
    assert foreign.headers["gateway-recovered"] == "false"


async def test_a_channel_without_history_or_without_events_has_an_empty_one(api: Stand) -> None:
    for channel in ("mute", "few/never", "commands:01ARZ3NDEKTSV4RRFFQ69G5FAV"):
        answer = await api.http.get(f"/channels/{channel}/history")
        assert (answer.status_code, answer.json()) == (200, [])
        assert answer.headers["gateway-recovered"] == "true"
        assert answer.headers["gateway-position"]


@pytest.mark.parametrize("limit", ["0", "1001", "-1", "x", "", "1.5", "²", "9" * 5000])
async def test_a_limit_is_a_number_within_bounds(api: Stand, limit: str) -> None:
    answer = await api.http.get("/channels/log/history", params={"limit": limit})
    detail = problem(answer, 400, "bad-request")
    assert detail == f"expected a limit from 1 to 1000 but got {limit[:20]!r}"


@pytest.mark.parametrize("after", ["", "x", "latest", "a-1", "a-1-x", "A-1-1", "a-1-" + "9" * 30])
async def test_a_position_is_one_that_was_given_out(api: Stand, after: str) -> None:
    answer = await api.http.get("/channels/log/history", params={"after": after})
    detail = problem(answer, 400, "bad-request")
    assert detail == f"expected a position that this gateway gave out but got {after[:80]!r}"


async def test_history_is_for_channels_that_are_configured(api: Stand) -> None:
    detail = problem(await api.http.get("/channels/orders/history"), 404, "unknown-channel")
    assert detail == "no configured channel pattern covers 'orders'"
    bad = problem(await api.http.get("/channels/a%20b/history"), 400, "bad-request")
    assert bad.startswith("expected a channel name of 1 to 255")
    long = problem(await api.http.get(f"/channels/{'x' * 300}/history"), 400, "bad-request")
    assert len(long) < 250


async def test_what_is_sent_at_once_may_go_to_so_many_channels_and_no_more(
    valkey: RunningServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The broker would do nothing else for seconds, and be taken for one that is away."""
    config = config_of(valkey, tmp_path_factory.mktemp("many"), max_body=Bytes(1 << 20))
    feeds = [FeedConfig(type="*", channels=["data.to"])]
    to = [f"few/{number}" for number in range(100)]
    events = [EVENT | {"id": str(number), "data": {"to": to}} for number in range(101)]
    async with standing(msgspec.structs.replace(config, feeds=feeds)) as api:
        for count, status in ((101, 413), (100, 202)):
            sent = json.dumps(events[:count])
            answer = await api.http.post("/events", content=sent, headers=BATCH)
            assert answer.status_code == status, answer.text
