"""Permissions: whom the rules of a configuration let do what."""

from collections.abc import Sequence

import pytest

from gateway.config import AuthConfig, ChannelConfig, CommandConfig, Config, HistoryConfig
from gateway.errors import ConfigError, Forbidden, Unauthorized
from gateway.policy import Policy
from gateway.policy.permissions import Action, Permissions
from gateway.principals import ANYBODY, AuthType, Caller, Principal

ANNA = Caller(Principal(id="c-1", type=AuthType.USER, claims={"tier": "gold"}), "10.1.2.3")
BERT = Caller(Principal(id="c-2", type=AuthType.USER, roles=("admin",)))


def policy(
    *, commands: Sequence[CommandConfig] = (), channels: Sequence[ChannelConfig] = ()
) -> Policy:
    return Policy.of(Config(auth=AuthConfig(), commands=commands, channels=channels))


def order(allow: str | None) -> CommandConfig:
    return CommandConfig(path="/shops/{shop}/orders", type="order", stream="orders", allow=allow)


def may_send(allow: str | None, caller: Caller, *, secured: bool = True, qty: int = 1) -> bool:
    compiled = policy(commands=[order(allow)])
    permissions = compiled.permissions
    permissions.secured = secured
    found = compiled.commands.match("/shops/s-1/orders")
    assert found
    try:
        permissions.check_command(found[0], caller, {"qty": qty}, found[1])
    except (Forbidden, Unauthorized):
        return False
    return True


def may(action: Action, config: ChannelConfig, caller: Caller, name: str = "orders:c-1") -> bool:
    compiled = policy(channels=[config])
    compiled.permissions.secured = True
    match = compiled.channels.match(name)
    assert match
    try:
        compiled.permissions.check_channel(action, name, match, caller)
    except (Forbidden, Unauthorized):
        return False
    return True


@pytest.mark.parametrize(
    ("rule", "anna", "bert"),
    [
        ("principal.id == 'c-1'", True, False),
        ("'admin' in principal.roles", False, True),
        ("principal.claims.tier == 'gold'", True, False),
        ("data.qty < 5", True, True),
        ("path.shop == 's-1' && principal.type == 'user'", True, True),
        ("request.address.startsWith('10.')", True, False),
        ("request.transport == 'http'", True, True),
        ("data.nothing == 1", False, False),
        ("principal.claims.tier", False, False),
    ],
)
def test_a_rule_decides_by_principal_request_data_and_path(
    rule: str, anna: bool, bert: bool
) -> None:
    assert (may_send(rule, ANNA), may_send(rule, BERT)) == (anna, bert)


def test_without_a_rule_everybody_may_and_nobody_once_there_is_authentication() -> None:
    assert may_send(None, ANYBODY, secured=False)
    assert not may_send(None, ANNA, secured=True)


def test_a_rule_holds_also_where_there_is_no_authentication() -> None:
    assert may_send("data.qty < 5", ANYBODY, secured=False)
    assert not may_send("data.qty < 5", ANYBODY, secured=False, qty=5)


def test_a_channel_has_a_rule_for_each_action() -> None:
    config = ChannelConfig(
        pattern="orders:{customer}",
        subscribe="principal.id == customer || 'admin' in principal.roles",
        publish="'admin' in principal.roles",
        history=HistoryConfig(allow="channel == 'orders:c-1' && principal.id == 'c-1'"),
    )
    assert may(Action.SUBSCRIBE, config, ANNA)
    assert not may(Action.SUBSCRIBE, config, ANNA, name="orders:c-3")
    assert may(Action.SUBSCRIBE, config, BERT)
    assert not may(Action.PUBLISH, config, ANNA)
    assert may(Action.PUBLISH, config, BERT)
    assert may(Action.HISTORY, config, ANNA)
    assert not may(Action.HISTORY, config, BERT)


def test_a_rule_of_what_is_not_known_beforehand_is_not_judged_by_examples() -> None:
    for rule in ("principal.claims.admin", "data.open", "principal.claims.x == 'y'", "path.shop"):
        policy(commands=[order(rule)])


def test_who_may_subscribe_may_read_the_history_unless_it_is_said_otherwise() -> None:
    config = ChannelConfig(pattern="orders:{customer}", subscribe="principal.id == customer")
    assert may(Action.HISTORY, config, ANNA)
    assert not may(Action.HISTORY, config, BERT)


def test_who_has_shown_no_credentials_is_asked_for_some() -> None:
    permissions = Permissions({}, {}, secured=True)
    compiled = policy(commands=[order(None)])
    (route,) = compiled.commands
    with pytest.raises(Unauthorized):
        permissions.check_command(route, ANYBODY, {}, {})
    with pytest.raises(Forbidden, match="send order"):
        permissions.check_command(route, ANNA, {}, {})


@pytest.mark.parametrize(
    ("commands", "channels", "sign"),
    [
        ([order("principal.name == 1 &&")], [], "allow"),
        ([order("path.shp == 's'")], [], "no parameter 'shp'"),
        ([order("customer == 's'")], [], "unknown variable 'customer'"),
        ([], [ChannelConfig(pattern="a:{b}", subscribe="principal.id == c")], "variable 'c'"),
        ([order("principal.idd == 's'")], [], "'principal' has no member 'idd'; did you mean 'id'"),
        ([], [ChannelConfig(pattern="a", subscribe="request.adress == ''")], "mean 'address'"),
        ([], [ChannelConfig(pattern="a", publish="principal.x.y")], "there are id, type, issuer"),
        ([], [ChannelConfig(pattern="a:{principal}")], "'principal'"),
        ([], [ChannelConfig(pattern="a", history=HistoryConfig(allow="1 +"))], "history.allow"),
        ([order("'yes'")], [], "true or false, but it gives 'yes'"),
        ([order("1")], [], "true or false, but it gives 1"),
        ([], [ChannelConfig(pattern="a", subscribe="principal.id")], "gives 'anonymous'"),
        ([], [ChannelConfig(pattern="a:{b}", publish="b")], "gives 'x'"),
        ([], [ChannelConfig(pattern="a", subscribe="principal.roles")], r"gives \[\]"),
    ],
)
def test_a_rule_that_makes_no_sense_is_told_before_anything_starts(
    commands: list[CommandConfig], channels: list[ChannelConfig], sign: str
) -> None:
    with pytest.raises(ConfigError, match=sign):
        policy(commands=commands, channels=channels)
