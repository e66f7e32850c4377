"""The example: that it is configured rightly, and that its handlers and its feeds fit together."""

import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.commands import Command
from gateway.config import Config
from gateway.policy import Policy, load_checked
from gateway.policy.routes import merge_parameters
from gateway.worker.handlers import Outcome, Rejected, outcome_of
from gateway.worker.loading import Handlers
from gateway.worker.loading import load as load_handlers

EXAMPLE = Path(__file__).parents[1] / "examples" / "orders"


@pytest.fixture
def loaded(tmp_path: Path) -> tuple[Config, Policy]:
    """The example where a wheel might have put it: its paths must not leave its own folder."""
    copy = tmp_path / "_examples" / "orders"
    shutil.copytree(EXAMPLE, copy, ignore=shutil.ignore_patterns("__pycache__", ".gateway"))
    return load_checked(copy / "gateway.toml", {})


@pytest.fixture
def policy(loaded: tuple[Config, Policy]) -> Policy:
    return loaded[1]


@pytest.fixture
def handlers(loaded: tuple[Config, Policy]) -> Handlers:
    config, _ = loaded
    assert config.file is not None
    return load_handlers(config.worker.handlers, config.file.parent)


async def handle(handlers: Handlers, type: str, data: dict[str, Any]) -> Outcome:
    handler = handlers.get(type)
    assert handler is not None
    payload = handler.decoder.decode(msgspec.json.encode(data))
    command = Command(id="01A", type=type, data=payload, time="2026-01-01T00:00:00Z")
    answer: Any = handler.function(command)
    return outcome_of(await answer)


def test_every_command_has_a_handler(policy: Policy, handlers: Handlers) -> None:
    assert handlers.missing(route.type for route in policy.commands) == []
    assert handlers.idle(route.type for route in policy.commands) == []


def test_the_examples_of_each_schema_are_accepted(policy: Policy) -> None:
    for route in policy.commands:
        assert route.schema is not None
        parameters = dict.fromkeys(route.pattern.parameters, "01A")
        for data in route.schema.document["examples"]:
            route.validate(data)
            merged = merge_parameters(data, parameters)
            route.validate(merged)
            assert route.key_for(merged, parameters) == data["customer"]
            stream = "orders.priority" if data.get("tier") == "premium" else "orders"
            assert route.destination(merged, parameters).stream == stream


@pytest.mark.parametrize(
    ("wish", "expected"),
    [
        ({"sku": "tea-250", "qty": 2}, {"status": "accepted", "total": 15.6}),
        (
            {"sku": "gold", "qty": 2},
            {"status": "rejected", "reason": "there is no gold in this shop"},
        ),
        (
            {"sku": "tea-250", "qty": 101},
            {"status": "rejected", "reason": "at most 100 can be packed at once"},
        ),
    ],
)
async def test_an_order_is_accepted_or_rejected_and_all_watchers_see_it(
    policy: Policy, handlers: Handlers, wish: dict[str, Any], expected: dict[str, Any]
) -> None:
    outcome = await handle(handlers, "order.place", {"customer": "c-19", **wish})
    (event,) = outcome.events
    assert event.type == f"order.{expected['status']}"
    assert event.subject == "01A"
    placed = {"order": "01A", "customer": "c-19", "placed_at": "2026-01-01T00:00:00Z"}
    assert event.data == {**placed, **wish, **expected}
    assert outcome.result == event.data
    attributes = {"type": event.type, "data": json.loads(json.dumps(event.data))}
    assert policy.feeds.channels_for(attributes) == ["orders", "orders:c-19"]


async def test_an_order_is_shipped_with_a_tracking_number_only(
    policy: Policy, handlers: Handlers
) -> None:
    parcel = {"order": "01B", "customer": "c-19"}
    with pytest.raises(Rejected, match="only with a tracking number"):
        await handle(handlers, "order.ship", parcel)
    outcome = await handle(handlers, "order.ship", {**parcel, "tracking": "JD0146"})
    (event,) = outcome.events
    assert (event.type, event.subject) == ("order.shipped", "01B")
    assert event.data == {**parcel, "status": "shipped", "tracking": "JD0146"}
    attributes = {"type": event.type, "data": event.data}
    assert policy.feeds.channels_for(attributes) == ["orders", "orders:c-19"]
