"""When to try again: exponential backoff with full jitter.

https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
"""

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delays that double from `first` seconds up to `longest`, each drawn between 0 and that.

    The jitter is full, so that what failed together does not come back together.
    """

    first: float
    longest: float

    def __post_init__(self) -> None:
        if not all(isinstance(each, int | float) for each in (self.first, self.longest)):
            raise TypeError(
                "expected backoff and max_backoff in seconds, such as 0.5, "
                f"but got {self.first!r} and {self.longest!r}"
            )
        if not 0 <= self.first <= self.longest:
            raise ValueError(
                f"expected 0 <= backoff <= max_backoff but got {self.first!r} and {self.longest!r}"
            )

    def bound(self, attempt: int) -> float:
        """The longest delay that may follow attempt number `attempt`, counted from 1."""
        doublings = min(attempt - 1, 64)  # beyond it a float would overflow before the minimum
        return min(self.longest, self.first * 2.0**doublings)

    def delay(self, attempt: int) -> float:
        """Draw the delay in seconds that follows attempt number `attempt`, counted from 1."""
        return random.uniform(0, self.bound(attempt))
