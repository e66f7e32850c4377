"""How long an event takes from the `POST` of its command to a subscriber's socket.

All of it is in between: HTTP, schema, route, the log, the worker, the example's handler, the
commit, the feed. One command at a time, against `gateway run` with its embedded log.
"""

import http.client
import json
import random
import socket
import statistics
import time
from typing import NamedTuple

from benchmarks.subjects import PATHS, PATIENCE, Server, Transport

COMMANDS = 300
WARM_UP = 30
PAUSE = 0.01
"""Seconds between commands, on average: the machine shall be idle."""

_HEADERS: dict[Transport, str] = {
    "ws": "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
    "sse": "Accept: text/event-stream\r\n",
}


class Latency(NamedTuple):
    """In milliseconds."""

    median: float
    p99: float


def latency(server: Server, transport: Transport) -> Latency:
    """Return how long it took from the moment before a `POST` until its event was read."""
    http_client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    http_client.connect()
    with _subscriber(server, transport) as subscriber:
        times = [_one(http_client, subscriber, number) for number in range(WARM_UP + COMMANDS)]
    http_client.close()
    times = times[WARM_UP:]
    return Latency(statistics.median(times) * 1000, statistics.quantiles(times, n=100)[98] * 1000)


def _subscriber(server: Server, transport: Transport) -> socket.socket:
    subscriber = socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE)
    request = f"GET {PATHS[transport]} HTTP/1.1\r\nHost: localhost\r\n{_HEADERS[transport]}\r\n"
    subscriber.sendall(request.encode())
    _read_until(subscriber, b"subscribed")
    return subscriber


def _one(http_client: http.client.HTTPConnection, subscriber: socket.socket, number: int) -> float:
    """Post a command of a new customer and wait for its event, then for the answer to the post."""
    time.sleep(random.uniform(0, 2 * PAUSE))
    customer = f"c-{number:06}"
    body = json.dumps({"customer": customer, "sku": "tea-250", "qty": 1})
    start = time.perf_counter()
    http_client.request("POST", "/orders", body, {"Content-Type": "application/json"})
    _read_until(subscriber, customer.encode())
    taken = time.perf_counter() - start
    answer = http_client.getresponse()
    answer.read()
    if answer.status != 202:
        raise SystemExit(f"expected 202 but got {answer.status}")
    return taken


def _read_until(subscriber: socket.socket, marker: bytes) -> None:
    received = b""
    while marker not in received:
        more = subscriber.recv(65536)
        if not more:
            raise SystemExit("the subscriber was disconnected")
        received += more
