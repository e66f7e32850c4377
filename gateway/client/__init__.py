"""A client for Python programs: follow channels, in order, without gaps, through reconnections.

::

    from gateway.client import subscribe

    async for event in subscribe("http://127.0.0.1:8080", ["orders", "orders:c-19"]):
        print(event.channel, event.type, event.data)
"""

from gateway.client.following import Backoff, Disconnected, Notice, subscribe
from gateway.client.frames import NotKnown, Received, Refused, Subscribed
from gateway.client.positions import Positions

__all__ = [
    "Backoff",
    "Disconnected",
    "NotKnown",
    "Notice",
    "Positions",
    "Received",
    "Refused",
    "Subscribed",
    "subscribe",
]
