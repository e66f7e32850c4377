"""The first line: a burst from one address is stopped before it costs others anything."""

import asyncio
import json
import secrets
import statistics
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import connect

from gateway.addresses import Proxies
from gateway.api.problems import respond
from gateway.limits.firstline import LEAST, PENALTY, FirstLine
from gateway.settings import Frequency
from gateway.transports.turnstile import Turnstile
from gateway.transports.uvicorn_http import HTTPProtocol
from gateway.transports.uvicorn_websocket import WebSocketProtocol
from tests.api.conftest import config_of
from tests.api.stand import Stand, problem, standing
from tests.contract.serving import Transports, serving
from tests.contract.talking import raw
from tests.servers import RunningServer

STRANGER, OTHER = "203.0.113.1", "203.0.113.2"
BURST = 10_000


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def line_of(clock: Clock, *proxies: str, rate: str = "100/s") -> FirstLine:
    return FirstLine(Frequency.parse(rate), Proxies(proxies), clock=clock)


def passed(line: FirstLine, count: int, address: str = STRANGER) -> int:
    return sum(not line.count(address) for _ in range(count))


def test_an_address_asks_so_often_and_no_more(clock: Clock) -> None:
    line = line_of(clock)
    assert passed(line, 1000) == LEAST
    clock.now = 0.1
    assert passed(line, 1000) == 10  # as many as the rate allows
    assert passed(line, 1000, OTHER) == LEAST


def test_who_asked_too_often_is_to_be_quiet_for_a_while(clock: Clock) -> None:
    line = line_of(clock)
    assert line.early(STRANGER) == 0.0
    passed(line, LEAST)
    assert line.early(STRANGER) == PENALTY
    assert line.count(STRANGER) == PENALTY
    assert line.early(OTHER) == 0.0
    clock.now = PENALTY
    assert line.early(STRANGER) == 0.0


def test_this_machine_is_not_counted(clock: Clock) -> None:
    line = line_of(clock)
    for own in ("127.0.0.1", "::1", ""):
        assert passed(line, 1000, own) == 1000


def test_all_addresses_of_one_ipv6_client_are_one(clock: Clock) -> None:
    line = line_of(clock)
    assert sum(passed(line, 1, f"2001:db8::{number:x}") for number in range(100)) == LEAST


def test_through_a_proxy_the_client_is_counted_and_not_the_proxy(clock: Clock) -> None:
    line = line_of(clock, "10.0.0.0/8")

    def ask(client: str) -> float:
        return line.ask("10.0.0.1", lambda: [("x-forwarded-for", client)])

    assert sum(not ask(STRANGER) for _ in range(100)) == LEAST
    assert not ask(OTHER)
    assert line.early("10.0.0.1") == 0.0


def test_who_hides_behind_a_proxy_of_this_machine_is_counted_all_the_same(clock: Clock) -> None:
    line = line_of(clock, "127.0.0.1")
    contradiction = [("x-forwarded-for", STRANGER), ("forwarded", f"for={OTHER}")]
    assert sum(not line.ask("127.0.0.1", lambda: contradiction) for _ in range(100)) == LEAST
    assert not line.ask("127.0.0.1", lambda: [("x-forwarded-for", STRANGER)])
    assert not any(line.ask("127.0.0.1", list) for _ in range(1000))  # the proxy itself


@asynccontextmanager
async def guarded(server: RunningServer, folder: Path, rate: str) -> AsyncIterator[Stand]:
    more = {"trusted_proxies": ["127.0.0.1"], "requests_per_ip": Frequency.parse(rate)}
    async with standing(config_of(server, folder, **more)) as stand:
        yield stand


@pytest.fixture(scope="module")
async def api(
    valkey: RunningServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stand]:
    """A gateway of which one address may ask twenty times, and then hardly again."""
    async with guarded(valkey, tmp_path_factory.mktemp("line"), "1/d") as stand:
        yield stand


@pytest.fixture
def stranger() -> dict[str, str]:
    """The header of an address from which nobody came before."""
    return {"x-forwarded-for": f"2001:db8:{secrets.token_hex(2)}:{secrets.token_hex(2)}::1"}


async def use_up(api: Stand, stranger: dict[str, str]) -> None:
    for _ in range(LEAST):
        assert (await api.http.get("/healthz", headers=stranger)).status_code == 200


async def test_whatever_is_asked_is_refused_alike(api: Stand, stranger: dict[str, str]) -> None:
    await use_up(api, stranger)
    for method, path in (
        ("GET", "/healthz"),
        ("GET", "/no/such/path"),
        ("POST", "/orders"),
        ("DELETE", "/sse"),
    ):
        answer = await api.http.request(method, path, headers=stranger, content=b"x" * 100_000)
        problem(answer, 429, "rate-limited")
        assert int(answer.headers["retry-after"]) >= PENALTY
    assert (await api.http.get("/healthz")).status_code == 200


async def test_requests_of_one_connection_are_counted_one_by_one(
    api: Stand, stranger: dict[str, str]
) -> None:
    request = f"GET /healthz HTTP/1.1\r\nhost: x\r\nx-forwarded-for: {stranger['x-forwarded-for']}"
    statuses = []
    async with raw(api.port, b"") as (reader, writer):
        for _ in range(LEAST + 1):
            writer.write(f"{request}\r\n\r\n".encode())
            head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)).decode().lower()
            await reader.readexactly(int(head.partition("content-length: ")[2].split()[0]))
            statuses.append(head.split()[1])
    assert statuses == [*["200"] * LEAST, "429"]


async def test_a_handshake_is_a_request(api: Stand, stranger: dict[str, str]) -> None:
    await use_up(api, stranger)
    url = f"ws://127.0.0.1:{api.port}/ws"
    with pytest.raises(Exception, match="429"):
        await connect(url, proxy=None, additional_headers=stranger)


async def test_frames_of_a_websocket_are_counted_and_then_not_listened_to(
    valkey: RunningServer, tmp_path: Path, stranger: dict[str, str]
) -> None:
    async with guarded(valkey, tmp_path, "100/s") as api:
        url = f"ws://127.0.0.1:{api.port}/ws"
        async with connect(url, proxy=None, additional_headers=stranger) as socket:
            clock = asyncio.get_running_loop().time
            began = clock()
            for id in range(2 * LEAST):
                await socket.send(json.dumps({"id": id, "unsubscribe": {"channel": "x"}}))
            codes: Counter[str] = Counter()
            answered: set[int] = set()
            while len(answered) < 2 * LEAST:
                answer = json.loads(await asyncio.wait_for(socket.recv(), 30))
                if "id" in answer:
                    answered.add(answer["id"])
                    codes[answer["error"]["code"]] += 1
            assert codes["bad-frame"] >= LEAST - 1
            assert codes["rate-limited"] >= 1
            await socket.send(json.dumps({"id": "last", "subscribe": {"channel": "log"}}))
            while (answer := json.loads(await socket.recv())).get("id") != "last":
                pass
            assert clock() - began >= PENALTY * 0.9
            assert "subscribed" in answer


async def test_a_peer_that_asked_too_often_is_not_read_from_for_a_while(
    valkey: RunningServer,
) -> None:
    line = FirstLine(Frequency(1), Proxies([]), is_own=lambda address: False)
    transports = Transports(
        "detached", HTTPProtocol.behind(Turnstile(), line, respond), WebSocketProtocol
    )
    async with AsyncExitStack() as stack:
        port = (await stack.enter_async_context(serving(valkey, transports))).port
        one, other = [
            await stack.enter_async_context(
                httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30)
            )
            for _ in range(2)
        ]
        for _ in range(LEAST):
            assert (await one.get("/healthz")).status_code == 200
        problem(await one.get("/healthz"), 429, "rate-limited")
        clock = asyncio.get_running_loop().time
        refused_at = clock()
        for answered in asyncio.as_completed([one.get("/healthz"), other.get("/healthz")]):
            assert (await answered).status_code in (200, 429)
            assert clock() - refused_at >= PENALTY * 0.9


async def test_a_burst_from_one_address_leaves_the_others_alone(
    valkey: RunningServer, tmp_path: Path, stranger: dict[str, str]
) -> None:
    async with guarded(valkey, tmp_path, "100/s") as api:
        before = await times(api, 100)
        flood = asyncio.create_task(burst(api.port, stranger["x-forwarded-for"]))
        during = []
        while not flood.done():
            during += await times(api, 20)
        answers = await flood
        assert sum(answers.values()) == BURST
        assert set(answers) == {202, 429}
        assert answers[429] > BURST / 2
        assert len(during) >= 100, "the burst was over too soon to tell"
        # The client shares the loop with both ends: only a standstill can be told from noise.
        assert statistics.median(during) < 20 * statistics.median(before) + 0.05


async def times(api: Stand, count: int) -> list[float]:
    """Return the seconds that each of some commands of somebody else took."""
    clock = asyncio.get_running_loop().time
    found = []
    for _ in range(count):
        began = clock()
        answer = await api.post("/unheard", "{}", x_forwarded_for="198.51.100.77")
        assert answer.status_code in (202, 429), answer.text
        found.append(clock() - began)
    return found


async def burst(port: int, address: str) -> Counter[int]:
    """Send commands from one address over some connections, as fast as they are answered."""
    found: Counter[int] = Counter()
    connections = 500
    each = BURST // connections
    await asyncio.gather(*(_send(port, address, each, found) for _ in range(connections)))
    return found


async def _send(port: int, address: str, count: int, found: Counter[int]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    request = (
        f"POST /unheard HTTP/1.1\r\nhost: x\r\nx-forwarded-for: {address}\r\n"
        "content-length: 2\r\n\r\n{}"
    ).encode()
    for _ in range(count):
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        await reader.readexactly(int(length))
        found[int(head.split()[1])] += 1
    writer.close()
