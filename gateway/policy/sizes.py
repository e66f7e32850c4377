"""How much data there is, before something that cannot bear much of it looks at it."""

from collections.abc import Collection
from typing import Any


def too_large(data: Any, limit: int) -> bool:
    """Return whether `data` holds more than `limit` values, itself included, or is as deep.

    It stops at the limit, and does not recurse.
    """
    pending = [data]
    seen = 0
    while pending:
        value = pending.pop()
        seen += 1
        if isinstance(value, dict):
            members: Collection[Any] = value.values()
        elif isinstance(value, list | tuple):
            members = value
        else:
            continue
        if seen + len(pending) + len(members) > limit:
            return True
        pending.extend(members)
    return False
