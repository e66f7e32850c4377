"""Limits: which concern a deed, whose allowance it uses, and how they are told."""

from pathlib import Path
from typing import Any

import pytest

from gateway.buckets import Level
from gateway.config import CommandConfig, Config, LimitConfig, QueueConfig
from gateway.errors import ConfigError
from gateway.policy import Policy, load_checked
from gateway.policy.limits import MAX_SUBJECT, Deed, Limits, describe, headers
from gateway.principals import AuthType, Caller, Principal
from gateway.settings import Frequency, Of, Per, Seconds

ANNA = Caller(Principal(id="c-1", type=AuthType.USER), "203.0.113.1", connection="203.0.113.1:99")
KEY = Caller(Principal(id="shop", type=AuthType.API_KEY, token_id="k-7"), "203.0.113.2")
NOBODY = Caller(address="203.0.113.3")


def limits(*configs: LimitConfig) -> Limits:
    commands = [CommandConfig(path=f"/{type}", type=type, stream="s") for type in ("place", "ship")]
    return Policy.of(Config(commands=commands, limits=configs)).limits


def limit(*per: Per, rate: str = "10/s", **more: Any) -> LimitConfig:
    return LimitConfig(name="x", per=per, rate=Frequency.parse(rate), **more)


def bucket(config: LimitConfig, caller: Caller, command: str = "place") -> str | None:
    """Return whose allowance a command uses; None for nobody's."""
    dues = limits(config).due([Deed(Of.COMMANDS, caller, command)])
    assert len(dues) <= 1
    return dues[0].charge.key if dues else None


@pytest.mark.parametrize(
    ("per", "caller", "expected"),
    [
        ((Per.PRINCIPAL,), ANNA, "x:user::c-1"),
        ((Per.PRINCIPAL,), NOBODY, "x:@203.0.113.3"),
        ((Per.API_KEY,), KEY, "x:k-7"),
        ((Per.API_KEY,), ANNA, None),
        ((Per.IP,), ANNA, "x:203.0.113.1"),
        ((Per.IP,), Caller(address="2001:db8::1:2:3:4"), "x:2001:db8::/64"),
        ((Per.COMMAND,), ANNA, "x:place"),
        ((Per.CONNECTION,), ANNA, "x:203.0.113.1:99"),
        ((Per.EVERYTHING,), ANNA, "x:"),
        ((Per.PRINCIPAL, Per.COMMAND), ANNA, "x:place|user::c-1"),
        ((Per.COMMAND, Per.PRINCIPAL), ANNA, "x:place|user::c-1"),
    ],
)
def test_whose_allowance_it_is(per: tuple[Per, ...], caller: Caller, expected: str | None) -> None:
    assert bucket(limit(*per), caller) == expected


def test_a_long_name_makes_no_long_key() -> None:
    long = Caller(Principal(id="x" * 5000, type=AuthType.USER))
    other = Caller(Principal(id="x" * 5001, type=AuthType.USER))
    names = {bucket(limit(Per.PRINCIPAL), each) for each in (long, other)}
    assert len(names) == 2
    assert all(name and len(name) <= MAX_SUBJECT and name.startswith("x:") for name in names)


def test_only_the_commands_that_are_named_count() -> None:
    only = limit(Per.EVERYTHING, commands=["ship"])
    assert bucket(only, ANNA, "ship")
    assert bucket(only, ANNA, "place") is None


def test_only_whom_a_condition_holds_for_is_concerned() -> None:
    some = limit(Per.EVERYTHING, when="principal.type == 'unauthenticated'")
    assert bucket(some, NOBODY)
    assert bucket(some, ANNA) is None


def test_a_condition_that_cannot_be_decided_lets_nobody_off() -> None:
    assert bucket(limit(Per.EVERYTHING, when="principal.claims.tier == 'gold'"), ANNA)


def test_each_kind_of_deed_has_limits_of_its_own() -> None:
    found = limits(limit(Per.IP, of=Of.EVENTS))
    assert found.concern(Of.EVENTS)
    assert not found.concern(Of.COMMANDS)
    assert [due.charge.cost for due in found.due([Deed(Of.EVENTS, ANNA, cost=7)])] == [7]
    assert found.due([Deed(Of.EVENTS, ANNA, cost=0)]) == []


@pytest.mark.parametrize(
    ("rate", "burst", "interval"),
    [("100/s", 100, 0.01), ("600/m", 10, 0.1), ("5/h", 1, 720), ("10000/d", 1, 8.64)],
)
def test_a_burst_is_what_a_second_allows_unless_it_is_said(
    rate: str, burst: int, interval: float
) -> None:
    (found,) = limits(limit(Per.IP, rate=rate))
    assert (found.burst, round(found.interval, 9)) == (burst, interval)
    (found,) = limits(limit(Per.IP, rate=rate, burst=7))
    assert found.burst == 7


def test_a_queue_is_as_long_as_the_shorter_of_its_bounds() -> None:
    (by_size,) = limits(limit(Per.IP, queue=QueueConfig(size=5, wait=Seconds(60))))
    (by_time,) = limits(limit(Per.IP, queue=QueueConfig(size=500, wait=Seconds(2))))
    assert (by_size.patience, by_time.patience) == (0.5, 2.0)


def test_headers_name_every_limit() -> None:
    found = limits(
        LimitConfig(name="a", per=[Per.IP], rate=Frequency.parse("600/m")),
        LimitConfig(name="b", per=[Per.EVERYTHING], rate=Frequency.parse("5/s")),
    )
    dues = found.due([Deed(Of.COMMANDS, ANNA)])
    assert headers(dues, [Level(9, 0.1), Level(0, 1.0, 2.1)]) == {
        "ratelimit": '"a";r=9;t=1, "b";r=0;t=3',
        "ratelimit-policy": '"a";q=10;w=1, "b";q=5;w=1',
    }


@pytest.mark.parametrize(
    ("rate", "burst", "told"),
    [("600/m", 900, "q=600;w=60"), ("60/m", 5, "q=5;w=5"), ("2/d", 1, "q=1;w=43200")],
)
def test_the_policy_tells_of_no_more_than_may_come_at_once(
    rate: str, burst: int, told: str
) -> None:
    (found,) = limits(limit(Per.IP, rate=rate, burst=burst))
    assert found.policy.endswith(told)


PROBLEMS = {
    'name = "a b"\nper = "ip"\nrate = "1/s"': "1 to 64 letters",
    'name = "a"\nper = "ip"\nrate = "1"': 'expected a rate such as "100/s"',
    'name = "a"\nper = "ip"\nrate = "0/s"': 'expected a rate such as "100/s"',
    'name = "a"\nper = "ip"\nrate = "1000001/s"': 'expected a rate such as "100/s"',
    'name = "a"\nper = "ip"\nrate = 5': 'expected a rate such as "100/s"',
    'name = "a"\nper = "ipp"\nrate = "1/s"': "did you mean 'ip'?",
    'name = "a"\nper = []\nrate = "1/s"': "expected at least one",
    'name = "a"\nper = ["ip", "everything"]\nrate = "1/s"': "'everything' alone",
    'name = "a"\nper = "command"\nof = "events"\nrate = "1/s"': "for a limit of commands only",
    'name = "a"\nper = "ip"\nrate = "1/s"\nburst = 0': "expected 1 or more",
    'name = "a"\nper = "ip"\nrate = "1/s"\nof = "frames"': "expected commands or",
    'name = "a"\nper = "ip"\nrate = "1/s"\ncommands = ["plaec"]': "did you mean 'place'?",
    'name = "a"\nper = "ip"\nrate = "1/s"\nof = "events"\ncommands = ["place"]': "no commands",
    'name = "a"\nper = "ip"\nrate = "1/s"\nwhen = "data.x"': "unknown variable 'data'",
    'name = "a"\nper = "ip"\nrate = "1/s"\nqueue = { wait = 0 }': "expected more than 0",
    'name = "a"\nper = "ip"\nrate = "1/s"\nqueue = { wait = "61s" }': "up to 60 seconds but got 61",
    'name = "a"\nper = "ip"': "the key 'rate' is missing",
}


@pytest.mark.parametrize(("text", "expected"), PROBLEMS.items())
def test_what_is_wrong_with_a_limit_is_told_with_its_line(
    tmp_path: Path, text: str, expected: str
) -> None:
    command = '[[commands]]\npath = "/place"\ntype = "place"\nstream = "s"\n'
    (tmp_path / "gateway.toml").write_text(f"{command}[[limits]]\n{text}\n")
    with pytest.raises(ConfigError) as caught:
        load_checked(tmp_path, {})
    (problem,) = caught.value.problems
    assert expected in problem.message
    assert problem.message.startswith("limits[0]")
    assert problem.line >= 5


def test_a_name_is_of_one_limit(tmp_path: Path) -> None:
    one = '[[limits]]\nname = "a"\nper = "ip"\nrate = "1/s"\n'
    (tmp_path / "gateway.toml").write_text(one * 2)
    with pytest.raises(ConfigError, match=r":6: limits\[1\].name: 'a' is there already"):
        load_checked(tmp_path, {})


def test_a_proxy_that_is_none_is_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").write_text('[server]\ntrusted_proxies = ["10.0.0.1/8"]\n')
    with pytest.raises(ConfigError, match=r":2: server.trusted_proxies\[0\]: expected an address"):
        load_checked(tmp_path, {})


def test_limits_can_be_read_as_plain_data() -> None:
    config = limit(
        Per.IP, Per.COMMAND, rate="600/m", commands=["ship"], queue=QueueConfig(), when="true"
    )
    assert describe(limits(config)) == [
        {
            "name": "x",
            "of": "commands",
            "per": ["ip", "command"],
            "rate": "600/m",
            "burst": 10,
            "commands": ["ship"],
            "queue": {"size": 100, "seconds": 1.0},
            "when": "true",
        }
    ]
