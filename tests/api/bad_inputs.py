"""Bad inputs, each with the answer that it gets. `docs/security.md` shows them as a table.

python -m tests.api.bad_inputs      # writes the table anew
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

DOCUMENT = Path(__file__).parents[2] / "docs/security.md"
BEGIN, END = "<!-- bad inputs -->", "<!-- the end of them -->"

HOST = b"Host: a\r\n"
AUTHORIZED = b"Authorization: Bearer sesame\r\n"
HANDSHAKE = (
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


class Bad(NamedTuple):
    """A request that is not as it should be."""

    group: str
    what: str
    request: bytes
    status: int
    code: str


def _bad(group: str, status: int, code: str, requests: dict[str, bytes]) -> Iterator[Bad]:
    for what, request in requests.items():
        yield Bad(group, what, request, status, code)


def get(path: bytes = b"/healthz", headers: bytes = b"", *, host: bytes = HOST) -> bytes:
    return b"GET %b HTTP/1.1\r\n%b%b\r\n" % (path, host, headers)


def post(headers: bytes, body: bytes = b"{}", *, path: bytes = b"/echo") -> bytes:
    return b"POST %b HTTP/1.1\r\n%b%b\r\n%b" % (path, HOST, headers, body)


def sized(headers: bytes, body: bytes = b"{}", *, path: bytes = b"/echo") -> bytes:
    return post(headers + b"Content-Length: %d\r\n" % len(body), body, path=path)


CHUNKED = b"Transfer-Encoding: chunked\r\n"
ONE_CHUNK = b"2\r\n{}\r\n0\r\n\r\n"


def _smuggling() -> Iterator[Bad]:
    yield from _bad(
        "Smuggling",
        400,
        "bad-request",
        {
            "`Content-Length` and `Transfer-Encoding`": post(
                b"Content-Length: 2\r\n" + CHUNKED, b"0\r\n\r\n"
            ),
            "`Transfer-Encoding` and `Content-Length`": post(
                CHUNKED + b"Content-Length: 2\r\n", b"0\r\n\r\n"
            ),
            "two `Content-Length` that differ": post(b"Content-Length: 2\r\nContent-Length: 3\r\n"),
            "two `Content-Length` that agree": post(b"Content-Length: 2\r\nContent-Length: 2\r\n"),
            "`Content-Length: 2, 2`": post(b"Content-Length: 2, 2\r\n"),
            "`Content-Length: +2`": post(b"Content-Length: +2\r\n"),
            "`Content-Length: -2`": post(b"Content-Length: -2\r\n"),
            "`Content-Length` of 23 digits": post(b"Content-Length: %b\r\n" % (b"9" * 23)),
            "`Content-Length : 2`, a space before the colon": post(b"Content-Length : 2\r\n"),
            "`Transfer-Encoding: gzip, chunked`": post(
                b"Transfer-Encoding: gzip, chunked\r\n", ONE_CHUNK
            ),
            "`Transfer-Encoding: gzip`": post(b"Transfer-Encoding: gzip\r\n"),
            "`Transfer-Encoding: xchunked`": post(b"Transfer-Encoding: xchunked\r\n", ONE_CHUNK),
            "two `Transfer-Encoding`": post(
                CHUNKED + b"Transfer-Encoding: identity\r\n", ONE_CHUNK
            ),
            "`Transfer-Encoding` in HTTP/1.0": post(CHUNKED, ONE_CHUNK).replace(b"1.1", b"1.0"),
            "a header over two lines": get(headers=b"X: a\r\n b\r\n"),
            "lines that end with LF": get().replace(b"\r\n", b"\n"),
            "one line that ends with LF": get(headers=b"X: a\nY: b\r\n"),
            "a CR inside of a header": get(headers=b"X: a\rY: b\r\n"),
            "a NUL inside of a header": get(headers=b"X: a\x00b\r\n"),
            "a chunk's size that is no number": post(CHUNKED, b"zz\r\n{}\r\n0\r\n\r\n"),
            "a chunk's size of 68 bits": post(CHUNKED, b"f" * 17 + b"\r\n{}\r\n0\r\n\r\n"),
            "chunks whose lines end with LF": post(CHUNKED, b"2\n{}\n0\n\n"),
        },
    )


def _hosts() -> Iterator[Bad]:
    yield from _bad(
        "Hosts and targets",
        400,
        "bad-request",
        {
            "no `Host`": get(host=b""),
            "two `Host`": get(host=HOST * 2),
            "an empty `Host`": get(host=b"Host: \r\n"),
            "two `Authorization`": get(b"/healthz", b"Authorization: Bearer a\r\n" * 2),
            "`Host: a b/?#@`": get(host=b"Host: a b/?#@\r\n"),
            "`Host: a@evil.example`": get(host=b"Host: a@evil.example\r\n"),
            "`CONNECT evil.example:443`": b"CONNECT evil.example:443 HTTP/1.1\r\n%b\r\n" % HOST,
            "a target without a slash": get(b"healthz"),
            "a space in the target": get(b"/he althz"),
            "UTF-8 in the target": get("/é".encode()),
            "a target of 70,000 bytes": get(b"/" + b"y" * 70_000),
        },
    )
    yield from _bad(
        "Hosts and targets",
        404,
        "not-found",
        {
            "`/x/../healthz`": get(b"/x/../healthz"),
            "`/x/%2e%2e/healthz`": get(b"/x/%2e%2e/healthz"),
            "`/x/%252e%252e/healthz`": get(b"/x/%252e%252e/healthz"),
            "`//healthz`": get(b"//healthz"),
            "`//evil.example/`": get(b"//evil.example/"),
            "`/demo//evil.example/%2e%2e`": get(b"/demo//evil.example/%2e%2e"),
            "`/static%2fgateway.js`": get(b"/static%2fgateway.js"),
            "`/static/..%5c..%5cREADME.md`": get(b"/static/..%5c..%5cREADME.md"),
            "`/healthz%00`": get(b"/healthz%00"),
            "`/%0d%0aSet-Cookie:%20a=b`": get(b"/%0d%0aSet-Cookie:%20a=b"),
            "`/%ff%fe`": get(b"/%ff%fe"),
            "`/%zz`": get(b"/%zz"),
            "`OPTIONS *`": b"OPTIONS * HTTP/1.1\r\n%b\r\n" % HOST,
        },
    )


def _methods() -> Iterator[Bad]:
    yield from _bad(
        "Methods and versions",
        405,
        "method-not-allowed",
        {
            "`TRACE`": get().replace(b"GET", b"TRACE"),
            "`X-HTTP-Method-Override: GET`": sized(
                b"X-HTTP-Method-Override: GET\r\n", path=b"/healthz"
            ),
            "`?_method=POST`": get(b"/echo?_method=POST"),
            "a handshake by `POST`": post(HANDSHAKE, b"", path=b"/ws"),
        },
    )
    yield from _bad(
        "Methods and versions",
        400,
        "bad-request",
        {
            "a method that nobody knows": get().replace(b"GET", b"BREW"),
            "a method in lower case": get().replace(b"GET", b"get"),
            "HTTP/1.2": get().replace(b"1.1", b"1.2"),
            "the beginning of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "the beginning of TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 99,
            "noise": b"\x00\xff\xfe noise\r\n\r\n",
        },
    )
    yield from _bad(
        "Methods and versions",
        505,
        "version-not-supported",
        {
            "HTTP/0.9": b"GET /healthz\r\n\r\n",
            "HTTP/2.0 in clear text": get().replace(b"1.1", b"2.0"),
        },
    )


def _sizes() -> Iterator[Bad]:
    yield from _bad(
        "Sizes",
        431,
        "head-too-large",
        {
            "2,000 headers": get(headers=b"X: y\r\n" * 2000),
            "a header of 70,000 bytes": get(headers=b"X: %b\r\n" % (b"y" * 70_000)),
        },
    )
    large = b'{"a":"%b"}' % (b"x" * 20_000)
    yield from _bad(
        "Sizes",
        413,
        "payload-too-large",
        {
            "a body that is larger than `max_body`": sized(b"", large),
            "the same in a chunk": post(CHUNKED, b"%x\r\n%b\r\n0\r\n\r\n" % (len(large), large)),
        },
    )
    yield Bad(
        "Sizes", "101 channels", get(b"/sse?" + _channels(101)), 429, "too-many-subscriptions"
    )


def _channels(count: int) -> bytes:
    return b"&".join(b"channel=few/%d" % number for number in range(count))


def _bodies() -> Iterator[Bad]:
    yield from _bad(
        "Bodies",
        400,
        "bad-request",
        {
            "half a JSON document": sized(b"", b'{"a":'),
            "two JSON documents": sized(b"", b"{}{}"),
            "a member twice": sized(b"", b'{"a":1,"a":2}'),
            "a member twice, once in disguise": sized(b"", b'{"a":1,"\\u0061":2}'),
            "101 levels": sized(b"", b"[" * 102 + b"]" * 102),
            "9,000 levels": sized(b"", b"[" * 9000 + b"]" * 9000),
            "`NaN`": sized(b"", b'{"a":NaN}'),
            "a byte order mark": sized(b"", b"\xef\xbb\xbf{}"),
            "UTF-16": sized(b"", "{}".encode("utf-16")),
            "half a surrogate pair": sized(b"", b'{"a":"\\ud800"}'),
            "bytes that are no UTF-8": sized(b"", b'{"a":"\xff"}'),
        },
    )
    yield from _bad(
        "Bodies",
        415,
        "unsupported-media-type",
        {
            "`Content-Encoding: gzip`, a bomb or not": sized(
                b"Content-Encoding: gzip\r\n", b"\x1f\x8b\x08\x00"
            ),
            "`Content-Encoding: br`": sized(b"Content-Encoding: br\r\n"),
            "a form": sized(b"Content-Type: application/x-www-form-urlencoded\r\n", b"a=b"),
            "plain text, which needs no preflight": sized(b"Content-Type: text/plain\r\n"),
            "the charset latin-1": sized(b"Content-Type: application/json; charset=latin-1\r\n"),
            "a media type of noise": sized(b"Content-Type: \xff/\xfe\r\n"),
        },
    )


def _injections() -> Iterator[Bad]:
    event = AUTHORIZED + b"ce-specversion: 1.0\r\nce-source: /s\r\nce-type: t\r\n"
    yield from _bad(
        "Injection",
        400,
        "bad-request",
        {
            "line breaks in a channel": get(b"/sse?channel=log%0d%0aevent:x"),
            "line breaks in a position": get(b"/sse?channel=log&last_event_id=a%0a%0adata:x"),
            "`Last-Event-ID: a data: x`": get(b"/sse?channel=log", b"Last-Event-ID: a data: x\r\n"),
            "line breaks in an event's id": sized(
                event + b"ce-id: a%0d%0aevent:x\r\n", path=b"/events"
            ),
            "line breaks in an event's channel": sized(
                event + b"ce-id: a\r\nce-channel: a%0aid: 5\r\n", path=b"/events"
            ),
            "an idempotency key of 5,000 characters": sized(
                b"Idempotency-Key: %b\r\n" % (b"k" * 5000)
            ),
            "control characters in an idempotency key": sized(b"Idempotency-Key: \x01\r\n"),
            "`limit=1e9`": get(b"/channels/log/history?limit=1e9"),
        },
    )


def _strangers() -> Iterator[Bad]:
    evil = b"Origin: https://evil.example\r\n"
    preflight = b"Access-Control-Request-Method: POST\r\n"
    yield from _bad(
        "Strangers",
        403,
        "origin-not-allowed",
        {
            "a command from a page of another origin": sized(evil),
            "an event stream for one": get(b"/sse?channel=log", evil),
            "a WebSocket for one": get(b"/ws?channel=log", evil, host=HOST + HANDSHAKE),
            "its question beforehand": get(b"/echo", evil + preflight).replace(b"GET", b"OPTIONS"),
            "a command from a sandboxed frame, `Origin: null`": sized(b"Origin: null\r\n"),
        },
    )
    yield from _bad(
        "Strangers",
        401,
        "unauthorized",
        {
            "events without a token": sized(b"", path=b"/events"),
            "events with a token of noise": sized(
                b"Authorization: Bearer \xff\xfe\r\n", path=b"/events"
            ),
            "events with half of a token": sized(
                b"Authorization: Bearer sesa\r\n", path=b"/events"
            ),
        },
    )


def _handshakes() -> Iterator[Bad]:
    handshake = HOST + HANDSHAKE
    yield from _bad(
        "Handshakes",
        400,
        "bad-request",
        {
            "no `Sec-WebSocket-Key`": get(
                b"/ws", host=handshake.replace(b"Sec-WebSocket-Key", b"X")
            ),
            "a key of one letter": get(
                b"/ws", host=handshake.replace(b"dGhlIHNhbXBsZSBub25jZQ==", b"x")
            ),
            "version 8 of the protocol": get(b"/ws", host=handshake.replace(b"13", b"8")),
            "a handshake with a body": get(b"/ws", b"Content-Length: 5\r\n", host=handshake),
            "a handshake for two hosts": get(b"/ws", host=HOST + handshake),
        },
    )
    old = get(b"/ws", host=handshake).replace(b"HTTP/1.1", b"HTTP/1.0", 1)
    yield Bad("Handshakes", "a handshake in HTTP/1.0", old, 426, "upgrade-required")
    yield from _bad(
        "Handshakes",
        404,
        "not-found",
        {
            "a handshake at `/healthz`": get(b"/healthz", host=handshake),
            "a handshake at `/sse`": get(b"/sse?channel=log", host=handshake),
        },
    )


def everything() -> list[Bad]:
    """Return all of them, in the order of the table."""
    parts: Iterable[Iterator[Bad]] = (
        _smuggling(),
        _hosts(),
        _methods(),
        _sizes(),
        _bodies(),
        _injections(),
        _strangers(),
        _handshakes(),
    )
    return [bad for part in parts for bad in part]


def table() -> str:
    """Return them as Markdown."""
    rows = [f"| {bad.group} | {bad.what} | {bad.status} | `{bad.code}` |" for bad in everything()]
    return "\n".join(["| | sent | answered | |", "|---|---|---|---|", *rows])


def written() -> str:
    """Return the table that the document shows."""
    _, _, rest = DOCUMENT.read_text().partition(BEGIN)
    return rest.partition(END)[0].strip()


if __name__ == "__main__":
    between = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)
    text = DOCUMENT.read_text()
    DOCUMENT.write_text(between.sub(lambda _: f"{BEGIN}\n\n{table()}\n\n{END}", text))
