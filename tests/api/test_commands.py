"""Commands over HTTP: accepted, waited for, asked after."""

import asyncio
import re

import httpx
import pytest

from tests.api.stand import Stand, problem
from tests.servers import eventually

ORDER = b'{"customer":"c-19","qty":2}'


async def outcome(api: Stand, response: httpx.Response) -> dict[str, object]:
    """Wait until a command that was accepted is done, and return its status."""

    async def done() -> dict[str, object] | None:
        status: dict[str, object] = (await api.http.get(response.headers["location"])).json()
        return status if "finished_at" in status else None

    found = await eventually(done, within=30, reason="the command was done")
    assert found
    return found


async def test_a_command_is_accepted_and_says_where_to_ask_and_to_listen(api: Stand) -> None:
    answer = await api.post("/orders", ORDER)
    assert answer.status_code == 202
    accepted = answer.json()
    id = accepted["id"]
    assert re.fullmatch("[0-9A-Z]{26}", id)
    assert accepted == {
        "id": id,
        "status": "accepted",
        "status_url": f"/commands/{id}",
        "events_url": f"/sse?channel=commands%3A{id}&last_event_id=earliest",
    }
    assert answer.headers["location"] == f"/commands/{id}"
    assert answer.headers["content-type"] == "application/json"
    assert "preference-applied" not in answer.headers


async def test_the_url_for_events_tells_the_whole_life(api: Stand) -> None:
    url = (await api.post("/orders", ORDER)).json()["events_url"]
    told = []
    async with api.http.stream("GET", url) as stream:
        async for line in stream.aiter_lines():
            if line.startswith("data: ") and "specversion" in line:
                told.append(re.findall(r'"type":"(command\.[a-z]+)"', line)[0])
                if told[-1] == "command.succeeded":
                    break
    assert told == ["command.accepted", "command.started", "command.succeeded"]


async def test_the_status_tells_what_became_of_a_command(api: Stand) -> None:
    status = await outcome(api, await api.post("/orders", ORDER))
    assert (status["type"], status["status"], status["attempts"]) == ("order.place", "succeeded", 1)
    assert str(status["accepted_at"]) <= str(status["finished_at"])
    answer = await api.http.get(f"/commands/{status['id']}")
    assert answer.headers["cache-control"] == "no-store"
    assert (await api.http.head(f"/commands/{status['id']}")).status_code == 200


@pytest.mark.parametrize("id", ["01ARZ3NDEKTSV4RRFFQ69G5FAV", "x", "a%20b", "%7B%7D", "x" * 900])
async def test_a_command_that_is_not_known_is_not_found(api: Stand, id: str) -> None:
    detail = problem(await api.http.get(f"/commands/{id}"), 404, "unknown-command")
    assert detail.startswith("there is no command '")
    assert len(detail) < 150


# --- Waiting for the outcome: RFC 7240


async def test_who_waits_gets_the_outcome(api: Stand) -> None:
    answer = await api.post("/orders", ORDER, prefer="wait=20")
    assert answer.status_code == 200
    assert answer.headers["preference-applied"] == "wait=20"
    status = answer.json()
    assert (status["status"], status["attempts"]) == ("succeeded", 1)
    assert answer.headers["content-location"] == f"/commands/{status['id']}"
    assert (await api.http.get(f"/commands/{status['id']}")).json() == status


async def test_who_waits_gets_a_no_with_its_reason(api: Stand) -> None:
    answer = await api.post("/orders", b'{"customer":"bad","qty":1}', prefer="wait=20")
    assert answer.status_code == 200
    assert (answer.json()["status"], answer.json()["error"]) == ("failed", "no credit")


async def test_who_waits_hears_of_a_command_that_was_given_up(api: Stand) -> None:
    answer = await api.post("/break", b"{}", prefer="wait=20")
    assert answer.status_code == 200
    assert (answer.json()["status"], answer.json()["error"]) == ("dead-lettered", "ValueError")


async def test_an_outcome_that_does_not_come_in_time_is_a_202(api: Stand) -> None:
    answer = await api.post("/unheard", b"{}", prefer="respond-async, wait=1")
    assert answer.status_code == 202
    assert answer.headers["preference-applied"] == "wait=1"
    assert answer.json()["status"] == "accepted"
    status = (await api.http.get(answer.headers["location"])).json()
    assert (status["status"], status["attempts"]) == ("accepted", 0)


async def test_a_request_waits_while_others_are_answered(api: Stand) -> None:
    waiting = asyncio.create_task(api.post("/unheard", b"{}", prefer="wait=2"))
    answers = [await api.post("/orders", ORDER, prefer="wait=20") for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200] * 5
    assert (await waiting).status_code == 202


@pytest.mark.parametrize(
    ("prefer", "applied"),
    [
        ("wait=15", "wait=15"),
        ("Wait = 15", "wait=15"),
        ('wait="15"', "wait=15"),
        ("respond-async;x=y, wait=15", "wait=15"),
        ("wait=15; x=y", "wait=15"),
        ('return="a, wait=1", wait=15', "wait=15"),
        ("wait=15, wait=1", "wait=15"),
        ("wait=20", "wait=20"),
        ("wait=21", "wait=20"),
        ("wait=" + "9" * 900, "wait=20"),
    ],
)
async def test_the_preference_is_read_as_the_standard_has_it(
    api: Stand, prefer: str, applied: str
) -> None:
    answer = await api.post("/orders", ORDER, prefer=prefer)
    assert (answer.status_code, answer.headers["preference-applied"]) == (200, applied)


@pytest.mark.parametrize(
    "prefer",
    [
        *("wait", "wait=", "wait=x", "wait=-1", "wait=1.5", "wait=²", "wait=1 2", "await=1"),
        *("respond-async", 'x="wait=1', "wait=x, wait=1", '"' * 900, "x" * 2000 + ",wait=1", ","),
    ],
)
async def test_a_preference_that_makes_no_sense_is_passed_over(api: Stand, prefer: str) -> None:
    answer = await api.http.post("/orders", content=ORDER, headers={b"prefer": prefer.encode()})
    assert answer.status_code == 202
    assert "preference-applied" not in answer.headers


async def test_no_time_to_wait_is_a_preference_as_well(api: Stand) -> None:
    answer = await api.post("/orders", ORDER, prefer="wait=0")
    assert (answer.status_code, answer.headers["preference-applied"]) == (202, "wait=0")


# --- Paths


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/echo/plain", "plain"),
        ("/echo/two%20words", "two words"),
        ("/echo/a%3Fb%23c", "a?b#c"),
        ("/echo/caf%C3%A9", "café"),
        ("/echo/50%25", "50%"),
        ("/echo/%2541", "%41"),
        ("/echo/plus+sign", "plus+sign"),
        ("/echo/plain?ignored=1", "plain"),
    ],
)
async def test_parameters_of_the_path_are_decoded_and_become_data(
    api: Stand, path: str, name: str
) -> None:
    answer = await api.post(path, b'{"a":1}', prefer="wait=20")
    assert answer.status_code == 200, answer.text
    history = (await api.http.get("/channels/log/history", params={"limit": 1000})).json()
    (event,) = [e for e in history if e.get("causationid") == answer.json()["id"]]
    assert event["data"]["data"] == {"a": 1, "name": name}
    assert event["data"]["source"].isascii()
    assert httpx.URL(event["data"]["source"]).path == f"/echo/{name}"


async def test_a_path_that_is_no_utf8_is_refused(api: Stand) -> None:
    detail = problem(await api.post("/echo/%FF", b"{}"), 400, "bad-request")
    assert detail == "expected percent-encoded UTF-8 but got the path '/echo/%FF'"


async def test_a_body_that_contradicts_its_path_is_refused(api: Stand) -> None:
    answer = await api.post("/echo/one", b'{"name":"two"}')
    assert problem(answer, 422, "unroutable") == (
        "expected 'name' to be 'one' as in the path but got 'two'"
    )


@pytest.mark.parametrize("path", ["/orders/", "/Orders", "/echo/", "/echo/a/b", "/echo/a%2Fb"])
async def test_a_path_that_is_nearly_right_is_not_found(api: Stand, path: str) -> None:
    problem(await api.post(path, b"{}"), 404, "not-found")


async def test_what_the_peer_says_of_itself_does_not_matter(api: Stand) -> None:
    for host in (b"evil.example", b"[::1]:1", b"a_b.example:80"):
        status, _, body = await api.raw(
            b"POST /echo/x%%3Fy HTTP/1.1\r\nHost: %b\r\nContent-Length: 0\r\n\r\n" % host
        )
        assert status == 202, body
