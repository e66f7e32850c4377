"""What the edge costs a command, as ratios to one that anybody may send, in one run.

    make bench-edge

Commands per second through `POST` on one core, 64 at a time, to one gateway after the other: bare;
then with an API key, with a signed token (RS256), and with the token, a rule over it and limits.
Every gateway has its turn in every round, since the machine's speed drifts.
"""

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from benchmarks import machine
from benchmarks.sending import Request, Taken, accepted, print_ratios
from benchmarks.subjects import Server, environment, gateway

POSTS = 2000
SENDERS = 100
"""Principals who take turns, each with a token of their own."""
AT_MOST = 1.5
"""Times what a bare command costs."""

COMMAND = """
[broker]
max_backlog = 10000000
[[commands]]
path = "/orders"
type = "order.place"
stream = "orders"
"""
API_KEYS = """
[auth]
api_keys = "api-keys.toml"
"""
TOKENS = """
[[auth.jwt]]
issuer = "https://idp.example"
audience = ["gateway"]
keys = "idp.pem"
"""
ANYBODY = 'allow = "true"\n'
RULE = "allow = \"principal.id == data.customer || 'shop' in principal.roles\"\n"
LIMITS = """
[[limits]]
name = "each"
per = "principal"
rate = "100000/s"
burst = 100000
[[limits]]
name = "address"
per = "ip"
rate = "1000000/s"
burst = 1000000
"""


class Edge(NamedTuple):
    """One configuration, and what its senders show."""

    name: str
    config: str
    headers: list[Mapping[str, str]]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    rounds: int = parser.parse_args().rounds
    machine.check()
    print(machine.describe())
    print(f"load before: {os.getloadavg()[0]:.2f} (an idle machine has less than 0.2)\n")
    with tempfile.TemporaryDirectory(prefix="gw-", dir="/tmp") as folder:
        edges = list(_edges(Path(folder)))
        with contextlib.ExitStack() as stack:
            servers = {
                edge.name: stack.enter_context(_serving(Path(folder), edge)) for edge in edges
            }
            for edge in edges:  # so that nobody pays for what is done once
                _send(servers[edge.name], edge, SENDERS)
            results = [
                {edge.name: _send(servers[edge.name], edge, POSTS) for edge in edges}
                for _ in range(rounds)
            ]
    print_ratios("accepted", results)
    bare, *others = edges
    for edge in others:
        costs = sorted(each[bare.name].per_cpu / each[edge.name].per_cpu for each in results)
        cost = costs[len(costs) // 2]
        verdict = "meets" if cost <= AT_MOST else "MISSES"
        print(f"{edge.name:32} costs {cost:.2f} of a bare one: {verdict} at most {AT_MOST}")


def _edges(folder: Path) -> Iterator[Edge]:
    tokens = _signed_tokens(folder)
    keys = _api_keys(folder)
    yield Edge("bare", COMMAND, [{}])
    yield Edge("API key", COMMAND + ANYBODY + API_KEYS, keys)
    yield Edge("signed token", COMMAND + ANYBODY + TOKENS, tokens)
    yield Edge("token and rule", COMMAND + RULE + TOKENS, tokens)
    yield Edge("token, rule and two limits", COMMAND + RULE + TOKENS + LIMITS, tokens)


def _signed_tokens(folder: Path) -> list[Mapping[str, str]]:
    """Make the issuer's keys, and a token for each sender."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (folder / "idp.pem").write_bytes(pem)
    claims = {
        "iss": "https://idp.example",
        "aud": "gateway",
        "exp": int(time.time()) + 3600,
        "roles": ["shop"],
    }
    return [
        _bearer(jwt.encode({**claims, "sub": f"u-{number}"}, key, algorithm="RS256"))
        for number in range(SENDERS)
    ]


def _api_keys(folder: Path) -> list[Mapping[str, str]]:
    command = [sys.executable, "-m", "gateway", "token", "create", "--role", "shop"]
    file = ["--file", str(folder / "api-keys.toml")]
    made = [
        subprocess.run(
            [*command, *file, f"u-{number}"],
            env=environment(),
            check=True,
            capture_output=True,
            text=True,
        )
        for number in range(3)
    ]
    return [_bearer(each.stdout.split()[-1]) for each in made]


def _bearer(token: str) -> Mapping[str, str]:
    return {"Authorization": f"Bearer {token}"}


@contextlib.contextmanager
def _serving(folder: Path, edge: Edge) -> Iterator[Server]:
    config = folder / f"{edge.name.replace(' ', '-')}.toml"
    config.write_text(edge.config)
    with gateway("serve", config=config) as server:
        yield server


def _send(server: Server, edge: Edge, count: int) -> Taken:
    headers = edge.headers
    return accepted(
        server, lambda number: Request("/orders", headers[number % len(headers)]), count
    )


if __name__ == "__main__":
    main()
