"""Memory: what was found out about tokens, for a while, so that it is not found out again."""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

V = TypeVar("V")

SIZE = 4096
"""Tokens. With claims of 4 KiB each that is some 50 MB, and most are much smaller."""


def digest(token: str) -> bytes:
    """Return what a token is remembered by: it is not kept itself."""
    return hashlib.sha256(token.encode()).digest()


class Memory(Generic[V]):
    """Values with a time to live. The least recently used one makes room for a new one."""

    def __init__(self, size: int = SIZE, *, clock: Callable[[], float] = time.time) -> None:
        self._size = size
        self._clock = clock
        self._values: OrderedDict[bytes, tuple[V, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: bytes) -> V | None:
        """Return what is known and still holds."""
        found = self._values.get(key)
        if found is None:
            return None
        value, until = found
        if until <= self._clock():
            del self._values[key]
            return None
        self._values.move_to_end(key)
        return value

    def put(self, key: bytes, value: V, *, until: float) -> None:
        """Remember a value until a time, in seconds since 1970."""
        self._values[key] = value, until
        self._values.move_to_end(key)
        if len(self._values) > self._size:
            self._values.popitem(last=False)
