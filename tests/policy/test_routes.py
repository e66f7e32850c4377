"""Routes, through the file that configures them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import Unroutable, ValidationFailed
from gateway.policy import Policy, load_checked
from gateway.policy.routes import MAX_KEY, merge_parameters

Load = Callable[[str], Policy]

COMMANDS = """
[[commands]]
path = "/orders/{order}/{part}"
type = "part"
stream = "parts"
key = "path.order + '/' + path.part"

[[commands]]
path = "/orders"
type = "order.place"
stream = "orders"
schema = "order.json"
key = "data.customer"
routes = [
    { when = "has(data.tier) && data.tier == 'premium'", stream = "orders.priority" },
    { when = "data.qty > 100", stream = "orders.bulk" },
]

[[commands]]
path = "/orders/urgent/now"
type = "order.place"
stream = "urgent"
"""

FEEDS = """
[[channels]]
pattern = "orders"
history = { size = 7, ttl = "1m" }
[[channels]]
pattern = "orders:{customer}"
[[channels]]
pattern = "orders:vip"
[[channels]]
pattern = "all"

[[feeds]]
type = "order.*"
channels = ["'orders'", "'orders:' + data.customer"]
[[feeds]]
type = "order.placed"
channels = ["data.watchers.map(w, 'orders:' + w)", "'orders'"]
when = "has(data.watchers)"
[[feeds]]
type = "*"
channels = ["'all'"]
when = "source == '/shop' || subject == null && has(event.colour)"
"""


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def loaded(text: str) -> Policy:
        (tmp_path / "order.json").write_text('{"required": ["qty"]}')
        (tmp_path / "gateway.toml").write_text(text)
        return load_checked(tmp_path, {})[1]

    return loaded


@pytest.fixture
def policy(load: Load) -> Policy:
    return load(COMMANDS + FEEDS)


def test_a_path_finds_its_command(policy: Policy) -> None:
    found = policy.commands.match("/orders/7/lid")
    assert found is not None
    route, parameters = found
    assert (route.type, parameters) == ("part", {"order": "7", "part": "lid"})
    assert policy.commands.match("/orders/7") is None
    assert policy.commands.match("/Orders") is None


def test_a_literal_path_goes_first(policy: Policy) -> None:
    found = policy.commands.match("/orders/urgent/now")
    assert found is not None
    assert found[0].config.stream == "urgent"
    assert [route.path for route in policy.commands][-1] == "/orders/{order}/{part}"


def test_the_first_route_that_holds_decides(policy: Policy) -> None:
    route, _ = policy.commands.match("/orders") or pytest.fail("no route")
    assert route.destination({"qty": 1}, {}).stream == "orders"
    assert route.destination({"qty": 101}, {}).stream == "orders.bulk"
    assert route.destination({"qty": 101, "tier": "premium"}, {}).stream == "orders.priority"
    with pytest.raises(Unroutable, match="there is no member 'qty'"):
        route.destination({"tier": "standard"}, {})
    with pytest.raises(Unroutable, match="No such overload"):
        route.destination("text", {})


def test_data_is_checked_where_there_is_a_schema(policy: Policy) -> None:
    place, _ = policy.commands.match("/orders") or pytest.fail("no route")
    part, _ = policy.commands.match("/orders/1/2") or pytest.fail("no route")
    part.validate({})
    with pytest.raises(ValidationFailed):
        place.validate({})


@pytest.mark.parametrize(
    ("customer", "key"),
    [("c-1", "c-1"), (7, "7"), (7.0, "7"), (7.5, "7.5"), (-1, "-1"), (2**63, str(2**63))],
)
def test_a_key_is_a_text_or_a_number(policy: Policy, customer: object, key: str) -> None:
    route, _ = policy.commands.match("/orders") or pytest.fail("no route")
    assert route.key_for({"customer": customer}, {}) == key


@pytest.mark.parametrize("customer", [None, True, [], {}, "", "x" * (MAX_KEY + 1)])
def test_what_is_no_key_is_refused(policy: Policy, customer: object) -> None:
    route, _ = policy.commands.match("/orders") or pytest.fail("no route")
    with pytest.raises(Unroutable, match=r"expected the key data\.customer to be a number or"):
        route.key_for({"customer": customer}, {})


@pytest.mark.parametrize("data", [{}, None, [], "text"])
def test_data_without_the_key_is_refused(policy: Policy, data: object) -> None:
    route, _ = policy.commands.match("/orders") or pytest.fail("no route")
    with pytest.raises(Unroutable, match=r"^data\.customer: "):
        route.key_for(data, {})


def test_a_key_can_come_from_the_path_or_not_be_there(policy: Policy) -> None:
    part, parameters = policy.commands.match("/orders/7/lid") or pytest.fail("no route")
    urgent, _ = policy.commands.match("/orders/urgent/now") or pytest.fail("no route")
    assert part.key_for(None, parameters) == "7/lid"
    assert urgent.key_for({}, {}) is None


def test_streams_are_known_for_each_type(policy: Policy) -> None:
    assert policy.commands.streams_of("order.place") == (
        "orders",
        "orders.priority",
        "orders.bulk",
        "urgent",
    )
    assert policy.commands.streams_of("nothing") == ()
    assert set(policy.commands.streams) == {*policy.commands.streams_of("order.place"), "parts"}


def test_parameters_of_the_path_become_members() -> None:
    body = {"a": 1}
    assert merge_parameters(body, {}) is body
    assert merge_parameters(body, {"order": "7"}) == {"a": 1, "order": "7"}
    assert body == {"a": 1}
    assert merge_parameters(None, {"order": "7"}) == {"order": "7"}
    assert merge_parameters([1], {}) == [1]
    same = {"order": "7"}
    assert merge_parameters(same, {"order": "7"}) is same


@pytest.mark.parametrize("body", [[1], "text", 7, True])
def test_parameters_become_members_of_objects_only(body: object) -> None:
    with pytest.raises(Unroutable, match="expected an object, of which order of the path become"):
        merge_parameters(body, {"order": "7"})


@pytest.mark.parametrize("value", ["8", 7, None, [], "x" * 10_000])
def test_a_body_that_contradicts_the_path_is_refused(value: object) -> None:
    with pytest.raises(Unroutable, match="expected 'order' to be '7' as in the path") as caught:
        merge_parameters({"order": value}, {"order": "7"})
    assert len(str(caught.value)) < 200


def event(**attributes: Any) -> dict[str, Any]:
    return {"type": "order.placed", "source": "/x", "subject": "s", "id": "1", **attributes}


def test_channels_come_in_the_order_of_the_feeds_and_once(policy: Policy) -> None:
    data = {"customer": "c-1", "watchers": ["w", "c-1", "v"]}
    channels = policy.feeds.channels_for(event(data=data, source="/shop"))
    assert channels == ["orders", "orders:c-1", "orders:w", "orders:v", "all"]


def test_an_event_that_no_feed_takes_goes_nowhere(policy: Policy, load: Load) -> None:
    assert load("").feeds.channels_for(event()) == []
    assert policy.feeds.channels_for(event(type="other.thing", data=None)) == []
    assert policy.feeds.channels_for(event(type="orderly", data=None)) == []


def test_an_attribute_that_is_not_there_is_null(policy: Policy) -> None:
    bare = {"type": "paint", "source": "/x", "id": "1", "colour": "red"}
    assert policy.feeds.channels_for(bare) == ["all"]
    assert policy.feeds.channels_for({**bare, "subject": "s"}) == []


def test_an_event_that_names_its_channel_goes_there_alone(policy: Policy) -> None:
    assert policy.feeds.channels_for(event(channel="orders:x", data=None)) == ["orders:x"]
    assert policy.feeds.channels_for(event(channel="commands:1", data=None)) == ["commands:1"]
    with pytest.raises(Unroutable, match="'nowhere', which no configured pattern covers"):
        policy.feeds.channels_for(event(channel="nowhere"))


@pytest.mark.parametrize("customer", ["", "a b", "a\nb", "a:b", "x" * 300, "é"])
def test_a_name_that_no_browser_could_subscribe_to_is_refused(
    policy: Policy, customer: str
) -> None:
    with pytest.raises(Unroutable, match="which no configured pattern covers"):
        policy.feeds.channels_for(event(data={"customer": customer}))


@pytest.mark.parametrize("data", [None, {}, {"customer": 1}, [], {"customer": None}])
def test_an_event_that_a_feed_cannot_decide_is_refused(policy: Policy, data: object) -> None:
    with pytest.raises(Unroutable, match=r"^'orders:' \+ data\.customer: "):
        policy.feeds.channels_for(event(data=data))


def test_channels_match_by_name_and_then_by_pattern(policy: Policy) -> None:
    orders = policy.channels.match("orders")
    assert orders is not None
    assert orders.config.history is not None
    assert orders.config.history.size == 7
    customer, vip = policy.channels.match("orders:c-1"), policy.channels.match("orders:vip")
    assert customer is not None
    assert customer.parameters == {"customer": "c-1"}
    assert vip is not None
    assert (vip.config.pattern, vip.parameters) == ("orders:vip", {})
    assert policy.channels.match("orders:") is None
    assert policy.channels.match("orders:a:b") is None


def test_each_command_has_a_channel_with_history(load: Load) -> None:
    for ttl, seconds in (("7d", 3600.0), ("1m", 60.0)):
        policy = load(f"[broker]\nstatus_ttl = '{ttl}'")
        match = policy.channels.match("commands:01ABC")
        assert match is not None
        assert match.parameters == {"id": "01ABC"}
        assert match.config.history is not None
        assert match.config.history.size == 20
        assert match.config.history.ttl == seconds
