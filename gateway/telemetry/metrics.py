"""Metrics in the Prometheus format: https://prometheus.io/docs/instrumenting/exposition_formats/.

Most are looked at only when they are asked for, so that they cost nothing where events fly.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, Counter, Gauge
from prometheus_client import generate_latest as encode

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4


class Metrics:
    """What one process can tell of itself. All names begin with `gateway_`."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.accepted = self._counter(
            "gateway_commands_accepted", "Commands that were appended to the log.", "type"
        )
        self.published = self._counter(
            "gateway_events_published", "Events of producers that were taken."
        )
        self.refused = self._counter(
            "gateway_refused", "What was refused, by the code of the error.", "code"
        )
        self.limited = self._counter(
            "gateway_limited",
            "What was refused because of a limit or a quota, by its name.",
            "limit",
        )
        self.refused_tokens = self._counter(
            "gateway_tokens_refused", "Tokens that let nobody in, by what was wrong.", "fault"
        )
        self.lost = self._counter(
            "gateway_commands_lost",
            'Commands accepted with durability = "memory" that the broker did not take.',
        )

    def _counter(self, name: str, description: str, *labels: str) -> Counter:
        return Counter(name, description, labels, registry=self._registry)

    def gauge(self, name: str, description: str, value: Callable[[], float]) -> None:
        """Show what `value` returns at the time of asking."""
        Gauge(name, description, registry=self._registry).set_function(value)

    def state(
        self, name: str, description: str, states: Sequence[str], current: Callable[[], str]
    ) -> None:
        """Show which of some states it is at the time of asking: 1 for that one, else 0."""
        gauge = Gauge(name, description, ["state"], registry=self._registry)
        for state in states:
            gauge.labels(state).set_function(partial(_is, current, state))

    def sheet(
        self, name: str, description: str, label: str
    ) -> Callable[[Mapping[str, float]], None]:
        """Return what writes all values of a metric down, by their label, in place of the last."""
        gauge = Gauge(name, description, [label], registry=self._registry)

        def write(values: Mapping[str, float]) -> None:
            gauge.clear()
            for key, value in values.items():
                gauge.labels(key).set(value)

        return write

    def text(self) -> bytes:
        """Return everything, for Prometheus to read."""
        return encode(self._registry)


def _is(current: Callable[[], str], state: str) -> float:
    return float(current() == state)
