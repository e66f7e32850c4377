"""Noise of all kinds, over real connections to a process: no crash, no 500, nothing in its log."""

import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.api.bad_inputs import HANDSHAKE, HOST, everything
from tests.servers import short_directory

PATIENCE = 30.0
QUIET = 0.05
"""Seconds of silence after which nothing more is expected."""
UNEXPECTED = {500, 501, 502}
CONFIG = """
[server]
port = 0
demo = true
max_body = "20kB"
[events]
tokens = ["sesame-sesame-sesame"]
[[commands]]
path = "/orders"
type = "order.place"
stream = "orders"
schema = "order.json"
key = "data.customer"
routes = [{ when = "data.qty > 5", stream = "large" }]
[[commands]]
path = "/echo/{name}"
type = "echo"
stream = "others"
[[channels]]
pattern = "log"
history = { size = 1000, ttl = "1h" }
[[channels]]
pattern = "few/{name}"
conflate = "data.a"
[[feeds]]
type = "*"
channels = ["'log'"]
[[feeds]]
type = "*"
when = "type.startsWith('x')"
channels = ["'few/' + data.a"]
"""
SCHEMA = '{"type": "object", "required": ["customer"]}'

fuzzing = settings(max_examples=200, suppress_health_check=list(HealthCheck), database=None)

tokens = st.text("!#$%&'*+-.^_`|~0123456789abcdefXYZ", min_size=1, max_size=12).map(str.encode)
values = st.binary(max_size=60).map(
    lambda raw: bytes(each for each in raw if each > 31 and each != 127)
)
known = st.sampled_from(
    [
        *(b"Content-Type", b"Content-Length", b"Content-Encoding", b"Transfer-Encoding", b"Host"),
        *(b"Idempotency-Key", b"Prefer", b"Authorization", b"Origin", b"Cookie", b"Upgrade"),
        *(b"Connection", b"Expect", b"Range", b"If-None-Match", b"Last-Event-ID", b"traceparent"),
        *(b"ce-specversion", b"ce-id", b"ce-source", b"ce-type", b"ce-channel", b"ce-time"),
        *(b"Access-Control-Request-Method", b"Forwarded", b"X-Forwarded-For", b"tracestate"),
    ]
)
plausible = st.sampled_from(
    [
        *(b"application/json", b"application/cloudevents+json", b"chunked", b"gzip", b"1.0", b"0"),
        *(
            b"wait=5",
            b"wait=99999999999999999999",
            b"Bearer sesame-sesame-sesame",
            b"Bearer ",
            b"Basic x",
            b"2",
        ),
        *(b"https://evil.example", b"null", b"websocket", b"h2c", b"Upgrade", b"close", b"log"),
        *(b"100-continue", b"bytes=0-", b"bytes=-1", b"earliest", b"/s", b"t", b'"k', b"for=x"),
        b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01",
    ]
)
headers = st.lists(st.tuples(known | tokens, plausible | values), max_size=6)
methods = st.sampled_from([b"GET", b"POST", b"DELETE", b"HEAD", b"OPTIONS", b"PUT", b"PATCH"])
paths = st.sampled_from(
    [
        *(b"/", b"/orders", b"/echo", b"/events", b"/sse", b"/ws", b"/commands/x", b"/metrics"),
        *(b"/channels/log/history", b"/static/gateway.js", b"/demo/", b"/readyz", b"/console.json"),
        *(b"/unheard", b"/channels/", b"/channels//history", b"/admin/streams", b"/favicon.ico"),
    ]
)
noise = st.text(max_size=20).map(
    lambda text: "".join(f"%{each:02x}" for each in text.encode()).encode()
)
names = st.sampled_from(
    [b"channel", b"last_event_id", b"after", b"limit", b"max_rate", b"conflate"]
)
query = st.lists(
    st.tuples(names, noise | st.sampled_from([b"log", b"5", b"true", b"earliest", b"1e5"])),
    max_size=3,
).map(lambda pairs: b"&".join(b"%b=%b" % pair for pair in pairs))
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
documents = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=20,
)
bodies = documents.map(lambda document: json.dumps(document).encode()) | st.binary(max_size=200)


@dataclass(frozen=True)
class Target:
    """A gateway in a process of its own, and its log."""

    port: int
    log: Path

    def send(self, data: bytes) -> bytes:
        """Send bytes; return what is answered until silence falls."""
        said = b""
        with (
            closing(socket.create_connection(("127.0.0.1", self.port), PATIENCE)) as connection,
            suppress(ConnectionError, TimeoutError),
        ):
            connection.sendall(data)
            connection.settimeout(QUIET)
            while piece := connection.recv(65536):
                said += piece
        return said

    def check(self, data: bytes) -> None:
        """Send bytes; whatever is answered must not be a mistake of ours."""
        heads = self.send(data).split(b"HTTP/1.1 ")[1:]
        statuses = {int(head[:3]) for head in heads if head[:3].isdigit()}
        assert not UNEXPECTED & statuses, statuses

    def post(
        self, path: str, body: bytes, content_type: str, token: bytes = b"sesame-sesame-sesame"
    ) -> None:
        self.check(
            b"POST %b HTTP/1.1\r\n%bContent-Type: %b\r\nAuthorization: Bearer %b\r\n"
            b"Connection: close\r\nContent-Length: %d\r\n\r\n%b"
            % (path.encode(), HOST, content_type.encode(), token, len(body), body)
        )


@contextmanager
def running(folder: Path) -> Iterator[Target]:
    """Run a gateway that serves alone: what is accepted waits for ever."""
    (folder / "gateway.toml").write_text(CONFIG)
    (folder / "order.json").write_text(SCHEMA)
    log = folder / "stderr.log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "gateway", "serve"],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env={"PYTHONPATH": str(Path(__file__).parents[2]), "NO_COLOR": "1"},
        )
    try:
        assert process.stdout
        port = 0
        for line in process.stdout:
            if found := re.search(rb"SSE +http://127\.0\.0\.1:(\d+)/sse", line):
                port = int(found[1])
            if b"Ctrl-C" in line:
                break
        yield Target(port, log)
        assert process.poll() is None
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE)


@pytest.fixture(scope="module")
def running_target() -> Iterator[Target]:
    with short_directory() as folder, running(folder) as target:
        yield target


@pytest.fixture
def target(running_target: Target) -> Iterator[Target]:
    yield running_target
    assert running_target.send(b"GET /readyz HTTP/1.1\r\n%b\r\n" % HOST).startswith(b"HTTP/1.1 200")
    assert running_target.log.read_text() == ""


def test_requests_of_all_kinds(target: Target) -> None:
    @fuzzing
    @given(methods, paths, query, headers, bodies, st.booleans())
    def ask(
        method: bytes,
        path: bytes,
        query: bytes,
        headers: list[tuple[bytes, bytes]],
        body: bytes,
        sized: bool,
    ) -> None:
        lines = b"".join(b"%b: %b\r\n" % header for header in headers)
        lines += b"Content-Length: %d\r\n" % len(body) if sized else b""
        target.check(b"%b %b?%b HTTP/1.1\r\n%b%b\r\n%b" % (method, path, query, HOST, lines, body))

    ask()


def test_bad_requests_with_bytes_that_are_changed(target: Target) -> None:
    requests = [bad.request for bad in everything() if len(bad.request) < 2000]

    @fuzzing
    @given(
        st.sampled_from(requests),
        st.lists(st.tuples(st.integers(0, 400), st.binary(max_size=3)), max_size=4),
    )
    def ask(request: bytes, changes: list[tuple[int, bytes]]) -> None:
        for place, inserted in changes:
            place %= len(request) + 1
            request = request[:place] + inserted + request[place + len(inserted) // 2 :]
        target.check(request)

    ask()


def test_bodies_and_tokens(target: Target) -> None:
    @fuzzing
    @given(
        st.sampled_from(["/orders", "/echo/x", "/events"]),
        st.sampled_from(["application/json", "application/cloudevents+json", "text/plain"]),
        st.sampled_from([b"sesame-sesame-sesame"]) | values,
        bodies,
    )
    def post(path: str, content_type: str, token: bytes, body: bytes) -> None:
        target.post(path, body, content_type, token)

    post()


events = st.fixed_dictionaries(
    {
        "specversion": st.just("1.0"),
        "id": st.text(min_size=1),
        "source": st.just("/s"),
        "type": st.text(min_size=1),
    },
    optional={
        "subject": scalars,
        "time": st.text(max_size=9) | st.just("2026-01-01T00:00:00Z"),
        "channel": st.sampled_from(["log", "few/x", "mute"]) | st.text(max_size=9),
        "data": documents,
        "data_base64": st.text(max_size=9),
        "dataschema": st.just("http://169.254.169.254/latest") | st.text(max_size=9),
        "extension": scalars,
    },
)


def test_events_that_get_through_break_no_stream(target: Target) -> None:
    """What reaches a subscriber is what was said, and no field beside it (CWE-93)."""

    @fuzzing
    @given(events | documents)
    def publish(event: Any) -> None:
        target.post("/events", json.dumps(event).encode(), "application/cloudevents+json")

    publish()
    head, _, stream = target.send(
        b"GET /sse?channel=log&last_event_id=earliest HTTP/1.0\r\nHost: a\r\n\r\n"
    ).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    blocks = [block for block in _dechunked(stream).split(b"\n\n") if block]
    assert len(blocks) > 10
    for block in blocks:
        names = [line.partition(b":")[0] for line in block.split(b"\n")]
        assert names in ([b"id", b"data"], [b"event", b"id", b"data"]), block
        json.loads(block.partition(b"data: ")[2])


def _dechunked(body: bytes) -> bytes:
    found = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        found, body = found + body[: int(size, 16)], body[int(size, 16) + 2 :]
    return found


members = st.sampled_from(["id", "subscribe", "unsubscribe", "command", "channel", "path", "after"])
parts = st.dictionaries(
    st.sampled_from(["channel", "after", "path", "data", "idempotency_key", "max_rate", "more"]),
    st.sampled_from(["log", "earliest", "/echo", "/orders", "few/é", 5]) | documents,
    max_size=4,
)
frames = (
    st.dictionaries(members, parts | documents, max_size=3).map(json.dumps)
    | documents.map(json.dumps)
    | st.text(max_size=50)
    | st.binary(max_size=50)
)


def test_frames(target: Target) -> None:
    last = json.dumps({"id": "end", "unsubscribe": {"channel": "log"}})

    @fuzzing
    @given(st.lists(frames, max_size=6))
    def say(said: list[str | bytes]) -> None:
        with (
            connect(f"ws://127.0.0.1:{target.port}/ws", proxy=None) as talk,
            suppress(ConnectionClosed),
        ):
            for frame in [*said, last]:
                talk.send(frame)
            while (answer := json.loads(talk.recv(PATIENCE))).get("id") != "end":
                assert answer.get("error", {}).get("status") not in UNEXPECTED, answer

    say()


def test_bytes_behind_a_handshake(target: Target) -> None:
    request = b"GET /ws HTTP/1.1\r\n%b%b\r\n" % (HOST, HANDSHAKE)

    @fuzzing
    @given(st.binary(max_size=300))
    def say(data: bytes) -> None:
        target.check(request + data)

    say()
