"""What a connection costs that hears nothing: the time to open it, and the memory it keeps."""

import statistics
from pathlib import Path
from typing import NamedTuple

from benchmarks import machine
from benchmarks.subjects import Server, Transport, subscribed

OPENED = 1000
"""Connections of one run that measures how fast they open."""
IDLE = 5000
"""Connections whose memory is measured: enough for a page more or less to be lost in them."""
FILES = IDLE + 500
"""That the server may have to hold open."""


class Opening(NamedTuple):
    """How fast subscriptions opened, 64 handshakes at a time, the answer included."""

    rate: float
    """Connections for each second."""
    cpu_rate: float
    """Connections for each second of the server's processor time."""


def opening(reader: Path, server: Server, transport: Transport, *, rounds: int) -> Opening:
    """Return the medians of some rounds."""
    runs = [_open_once(reader, server, transport) for _ in range(rounds)]
    return Opening(
        statistics.median(run.rate for run in runs),
        statistics.median(run.cpu_rate for run in runs),
    )


def _open_once(reader: Path, server: Server, transport: Transport) -> Opening:
    before = machine.cpu_seconds(server.pid)
    with subscribed(reader, server, transport, OPENED) as readers:
        cpu = machine.cpu_seconds(server.pid) - before
        return Opening(OPENED / readers.seconds, OPENED / cpu)


def resident_bytes(reader: Path, server: Server, transport: Transport) -> float:
    """Return what each idle connection adds to the resident memory of a server.

    A first few connections come and go before, because they bring memory that is shared by all.
    """
    with subscribed(reader, server, transport, OPENED // 10):
        pass
    before = machine.resident_bytes(server.pid)
    with subscribed(reader, server, transport, IDLE):
        return (machine.resident_bytes(server.pid) - before) / IDLE
