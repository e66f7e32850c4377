"""From an event to what is appended: its channels, its bytes, and what each channel retains."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from gateway import Event
from gateway.config import BrokerConfig, ChannelConfig, Config, FeedConfig, HistoryConfig
from gateway.errors import PayloadTooLarge, Unroutable
from gateway.events import Publication
from gateway.policy.compiler import Policy
from gateway.policy.publishing import Publisher
from gateway.policy.routes import STATUS_HISTORY_SIZE
from gateway.settings import Seconds


def publisher(*feeds: FeedConfig, status_ttl: float = 86_400) -> Publisher:
    policy = Policy.of(
        Config(
            broker=BrokerConfig(status_ttl=Seconds(status_ttl)),
            channels=[
                ChannelConfig(pattern="orders", history=HistoryConfig(size=7, ttl=Seconds(1.5))),
                ChannelConfig(pattern="orders:{customer}"),
            ],
            feeds=feeds,
        )
    )
    return Publisher(policy.feeds, policy.channels)


BOTH = FeedConfig(type="order.*", channels=["'orders'", "'orders:' + data.customer"])


def decoded(publication: Publication) -> dict[str, Any]:
    event: dict[str, Any] = json.loads(publication.event)
    return event


def test_an_event_is_appended_once_for_each_of_its_channels() -> None:
    first, second = publisher(BOTH).publications(Event("order.placed", data={"customer": "c"}))
    assert (first.channel, second.channel) == ("orders", "orders:c")
    assert decoded(first) == decoded(second) | {"channel": "orders"}
    assert decoded(second)["channel"] == "orders:c"


def test_feeds_that_agree_on_a_channel_append_to_it_once() -> None:
    again = FeedConfig(type="*", channels=["['orders', 'orders']"])
    both = publisher(again, BOTH).publications(Event("order.placed", data={"customer": "c"}))
    assert [each.channel for each in both] == ["orders", "orders:c"]


def test_an_event_of_no_feed_goes_nowhere() -> None:
    assert publisher(BOTH).publications(Event("shipment.sent", data={})) == []


def test_an_event_that_names_its_channel_goes_there_alone() -> None:
    (only,) = publisher(BOTH).publications(Event("order.placed", channel="orders:x"))
    assert (only.channel, decoded(only)["channel"]) == ("orders:x", "orders:x")


@pytest.mark.parametrize(
    ("event", "mistake"),
    [
        (Event("order.placed", data={}), "customer"),
        (Event("order.placed"), "data"),
        (Event("order.placed", data={"customer": 5}), "string"),
        (Event("order.placed", data={"customer": "a b"}), "'orders:a b', which no configured"),
        (Event("order.placed", data={"customer": "a:b"}), "'orders:a:b', which no configured"),
        (Event("order.placed", channel="shipments"), "'shipments', which no configured"),
    ],
)
def test_what_a_feed_cannot_decide_is_refused(event: Event, mistake: str) -> None:
    with pytest.raises(Unroutable, match=mistake):
        publisher(BOTH).publications(event)


def test_feeds_see_the_whole_event() -> None:
    feed = FeedConfig(
        type="order.placed",
        channels=["'orders:' + subject", "'orders:' + event.shop"],
        when="source == '/shop' && correlationid == 'c' && event.shop != ''",
    )
    event = Event(
        type="order.placed",
        source="/shop",
        subject="s",
        correlationid="c",
        extensions={"shop": "north"},
    )
    told = publisher(feed).publications(event)
    assert [each.channel for each in told] == ["orders:s", "orders:north"]
    event.source = "/elsewhere"
    assert publisher(feed).publications(event) == []


def test_what_a_handler_leaves_out_is_filled_in() -> None:
    event = decoded(publisher(BOTH).publications(Event("t", channel="orders", data=[1]))[0])
    assert len(event.pop("id")) == 26
    age = datetime.now(UTC) - datetime.fromisoformat(event.pop("time"))
    assert abs(age.total_seconds()) < 60
    assert event == {
        "specversion": "1.0",
        "source": "/gateway",
        "type": "t",
        "channel": "orders",
        "datacontenttype": "application/json",
        "data": [1],
    }


def test_data_that_json_cannot_hold_is_a_mistake_of_the_handler() -> None:
    with pytest.raises(TypeError):
        publisher().publications(Event("t", channel="orders", data=object()))


@pytest.mark.parametrize(
    ("channel", "size", "ttl_ms"),
    [
        ("orders", 7, 1500),
        ("orders:c", 0, 0),
        ("commands:01ARZ3NDEKTSV4RRFFQ69G5FAV", STATUS_HISTORY_SIZE, 3_600_000),
    ],
)
def test_a_channel_retains_what_is_configured(channel: str, size: int, ttl_ms: int) -> None:
    publication = publisher().publication(channel, b"{}")
    assert publication == Publication(channel, b"{}", size, ttl_ms)
    assert publisher().retention(channel).ttl_ms == ttl_ms


def test_a_command_is_told_of_for_no_longer_than_its_status_is_kept() -> None:
    assert publisher(status_ttl=60).retention("commands:x").ttl_ms == 60_000


def test_a_channel_that_is_not_configured_retains_nothing() -> None:
    assert publisher().retention("shipments").ttl_ms == 0


def test_an_event_goes_to_so_many_channels_and_no_more() -> None:
    feed = FeedConfig(type="*", channels=["data.to"])
    few = Event("t", data={"to": [f"orders:{number}" for number in range(1000)], "pad": "x" * 1000})
    assert len(publisher(feed).publications(few)) == 1000
    few.data["pad"] *= 9
    with pytest.raises(PayloadTooLarge, match="16 MiB"):
        publisher(feed).publications(few)


def test_only_the_gateway_tells_of_a_commands_life_whichever_way_leads_there() -> None:
    feed = FeedConfig(type="*", channels=["'commands:' + data.id"])
    told = Event("command.succeeded", data={"id": "x"}, channel="commands:x")
    for event in (told, Event("command.succeeded", data={"id": "x"})):
        with pytest.raises(Unroutable, match="only the gateway tells"):
            publisher(feed).publications(event)
    assert publisher(feed).publications(Event("order.seen", data={"id": "x"}))
