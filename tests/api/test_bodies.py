"""Bodies of commands: JSON that is whole, unambiguous, not too large, and as its schema says."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from gateway.broker.keys import Keys
from tests.api.conftest import MAX_BODY
from tests.api.stand import Stand, problem
from tests.servers import eventually


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"{", "expected JSON: Input data was truncated"),
        (b"{'a':1}", "object keys must be strings"),
        (b'{"a":1,}', "expected JSON: "),
        (b'{"a":NaN}', "invalid character"),
        (b'{"a":-Infinity}', "expected JSON: "),
        (b'{"a":1e400}', "Number out of range"),
        (b'{"a":01}', "expected JSON: "),
        (b'{"a":1}{}', "trailing characters"),
        (b"hello", "invalid character"),
        (b" ", "expected JSON: "),
        (b'\xef\xbb\xbf{"a":1}', "invalid character"),
        (b'{"a":"\xff"}', "expected JSON: "),
        (b'{"a":"\\ud800"}', "expected JSON: "),
        (b'{"a":"line\nbreak"}', "invalid"),
        ('{"a":1}'.encode("utf-16"), "expected JSON: "),
        (b'{"a":1,"a":2}', "expected each member once but 'a' comes twice"),
        (b'{"a":1,"\\u0061":2}', "expected each member once but 'a' comes twice"),
        (b'{"x":[{"b":{"u":"http://x","u":":"}}]}', "expected each member once but 'u' comes"),
        (b'[{"a":1},{"a":1,"b":2,"a":1}]', "expected each member once but 'a' comes twice"),
        (b"[" * 102 + b"1" + b"]" * 102, "expected JSON of at most 100 levels"),
        (b'{"a":' * 102 + b"1" + b"}" * 102, "expected JSON of at most 100 levels"),
        (b"[" * 9000 + b"]" * 9000, "expected JSON of at most 100 levels"),
        (b"[" * 19_000, "expected JSON"),
    ],
)
async def test_what_is_no_clean_json_is_refused(api: Stand, body: bytes, detail: str) -> None:
    for path in ("/orders", "/echo"):
        assert detail in problem(await api.post(path, body), 400, "bad-request")


@pytest.mark.parametrize(
    "body",
    [
        *(b"null", b"true", b"[]", b'"text"', b"1", b"-0.0", b'{"":""}', b' \r\n\t{"a" : 1 } '),
        b'{"time":"2026-01-01T00:00:00Z","url":"http://[::1]:80/","a:b":{"a:b":1}}',
        b'[{"a":1},{"a":2}]',
        b'{"big":123456789012345678901234567890,"small":1e-999,"digits":%b}' % (b"9" * 300),
        b"[" * 100 + b"1" + b"]" * 100,
        json.dumps({"text": 'quotes " and \\ and \u2028 and \U0001f600'}).encode(),
        json.dumps({f"k{n}": {"k": n} for n in range(500)}).encode(),
    ],
)
async def test_every_other_json_is_taken_where_there_is_no_schema(api: Stand, body: bytes) -> None:
    assert (await api.post("/echo", body)).status_code == 202, body


async def test_no_body_is_an_empty_object(api: Stand) -> None:
    assert (await api.http.post("/echo")).status_code == 202
    problem(await api.http.post("/orders"), 422, "validation-failed")


# --- Schemas


async def test_data_against_its_schema_is_refused_with_every_mistake_and_its_place(
    api: Stand,
) -> None:
    answer = await api.post("/orders", b'{"customer":5,"qty":0,"lines":[{"a/b":1},{}]}')
    assert problem(answer, 422, "validation-failed").startswith("at /customer: ")
    assert sorted(answer.json()["errors"], key=lambda each: each["pointer"]) == [
        {"pointer": "/customer", "detail": 'the value is not of type "string"'},
        {"pointer": "/lines/1", "detail": '"a/b" is a required property'},
        {"pointer": "/qty", "detail": "the value is less than the minimum of 1"},
    ]


async def test_the_schema_is_for_whole_documents_too(api: Stand) -> None:
    for body in (b"null", b"[]", b"5"):
        answer = await api.post("/orders", body)
        assert problem(answer, 422, "validation-failed") == 'the value is not of type "object"'
        assert answer.json()["errors"][0]["pointer"] == ""


# --- Media types


@pytest.mark.parametrize(
    "content_type",
    [
        *("application/json", "APPLICATION/JSON", "application/vnd.shop.order+json"),
        *("application/json; charset=utf-8", 'application/json;charset="UTF-8"; x=y'),
        *("application/json; x=y; charset=utf8", "application/json; notcharset=utf-16", ""),
    ],
)
async def test_json_may_be_called_by_all_its_names(api: Stand, content_type: str) -> None:
    answer = await api.post("/echo", b"{}", content_type=content_type)
    assert answer.status_code == 202, answer.text


@pytest.mark.parametrize(
    ("content_type", "got"),
    [
        ("text/plain", "'text/plain'"),
        ("application/x-www-form-urlencoded", "'application/x-www-form-urlencoded'"),
        ("multipart/form-data; boundary=x", "'multipart/form-data'"),
        ("application/cloudevents-batch", "'application/cloudevents-batch'"),
        ("json", "'json'"),
        ("application/json, text/plain", "'application/json, text/plain'"),
        ("application/json; charset=latin-1", "the charset 'latin-1'"),
        ('application/json; x=y;  CharSet = "UTF-16"', "the charset 'UTF-16'"),
        ("application/json; charset=utf-8x", "the charset 'utf-8x'"),
    ],
)
async def test_any_other_media_type_is_refused(api: Stand, content_type: str, got: str) -> None:
    answer = await api.post("/echo", b"{}", content_type=content_type)
    assert problem(answer, 415, "unsupported-media-type").endswith(f" but got {got}")


async def test_compressed_bodies_are_refused(api: Stand) -> None:
    answer = await api.post("/echo", b"{}", content_encoding="gzip")
    assert problem(answer, 415, "unsupported-media-type") == (
        "expected no Content-Encoding but got 'gzip'"
    )
    assert (await api.post("/echo", b"{}", content_encoding="Identity")).status_code == 202


# --- Sizes


def padded(size: int) -> bytes:
    return b'{"a":"%b"}' % (b"x" * (size - 8))


async def test_a_body_may_be_as_large_as_allowed_and_not_a_byte_more(api: Stand) -> None:
    assert (await api.post("/echo", padded(MAX_BODY))).status_code == 202
    answer = await api.post("/echo", padded(MAX_BODY + 1))
    assert problem(answer, 413, "payload-too-large") == "expected at most 20000 bytes but got 20001"


async def chunks(total: int, size: int) -> AsyncIterator[bytes]:
    body = padded(total)
    for begin in range(0, total, size):
        yield body[begin : begin + size]


@pytest.mark.parametrize("size", [100, 7000, MAX_BODY * 2])
async def test_a_body_of_no_declared_length_is_held_to_the_same_size(api: Stand, size: int) -> None:
    assert (await api.post("/echo", chunks(MAX_BODY, size))).status_code == 202
    answer = await api.post("/echo", chunks(MAX_BODY + 1, size))
    assert problem(answer, 413, "payload-too-large") == "expected at most 20000 bytes but more came"


async def test_a_body_that_would_be_too_large_is_refused_before_it_comes(api: Stand) -> None:
    status, _, body = await api.raw(
        b"POST /unheard HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999\r\n\r\n{"
    )
    assert status == 413
    assert json.loads(body)["detail"] == "expected at most 20000 bytes but got 99999999999999"


async def test_a_client_that_goes_away_in_the_middle_leaves_no_command(
    api: Stand, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "gateway")
    before = await accepted(api)
    _, writer = await asyncio.open_connection("127.0.0.1", api.port)
    writer.write(b"POST /unheard HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{}")
    await writer.drain()
    writer.close()
    await eventually(
        lambda: "POST /unheard: the client went away" in caplog.text,
        within=30,
        reason="it was seen",
    )
    assert await accepted(api) == before
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def accepted(api: Stand) -> int:
    """How many commands there are that nobody handles."""
    keys = Keys(api.gateway.config.broker.namespace)
    redis = api.broker.blocking()
    lengths = [await redis.xlen(keys.commands("unheard", number)) for number in range(16)]
    return sum(lengths)
