"""The configuration, as users meet it: a file, variables, and a report of all that is wrong."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import ChannelConfig, Config
from gateway.configfile import load
from gateway.errors import ConfigError, GatewayError, Problem
from gateway.policy import Policy, load_checked
from gateway.settings import Bytes, Seconds

Problems = Callable[..., list[str]]


@pytest.fixture
def problems(tmp_path: Path) -> Problems:
    """Write a file, load it, and return its problems as `line: message`, variables by name."""

    def of(text: str, environ: Mapping[str, str] | None = None) -> list[str]:
        file = tmp_path / "gateway.toml"
        file.write_text(text, newline="")
        try:
            load_checked(file, environ or {})
        except ConfigError as error:
            return [
                f"{p.line if p.file == str(file) else p.file}: {p.message}" for p in error.problems
            ]
        return []

    return of


EVERYTHING_WRONG = """\
# a comment = with [brackets]
[broker]
url = "http://localhost"
timeout = "5 parsecs"
namespaec = "shop"
namespace = "a shop"

[server]
port = 70_000
console = 1
max_body = "1.5B"
heartbeat = nan

[worker]
handlers = ["no_such_module",
            3, "json"]
concurrency = 0

[[commands]]
path = "/orders"
type = "order.place"
stream = "two words"
schema = "missing.json"
key = "data.customer +"
routes = [
    { when = "dato.tier == 'x'", stream = "orders" },
    { when = "shout(data.tier)" },
    "none",
    { when = "path.order == '1'", stream = "{}" },
]

[[commands]]
type = "order.cancel"
stream = true
key = "data["

[[commands]]
path = "/orders/{order}/ship"
type = "order ship"
stream = "orders"
key = "path.ordr"

[[commands]]
path = "/ws/talk"
type = "talk"
stream = "talk"

[[commands]]
path = "/orders"
type = "order.again"
stream = "orders"

[[channels]]
pattern = "orders:{customer}"
history = { size = 0, ttl = "0s" }

[[channels]]
pattern = "orders:{id}"

[[channels]]
pattern = "commands:{id}:log"

[[feeds]]
type = "order.*"
channels = ["'orderz'", 4, '''
'orders:' +
dat.customer''', "'orders:' + data.customer"]
when = "data.open"

[[feeds]]
type = "*.placed"
channels = []
colour = "red"

[events]
tokens = ["s3cret token"]
anonymous = "yes"

[evnts]
"""


def test_every_problem_is_reported_at_once_with_its_line(problems: Problems) -> None:
    found = problems(EVERYTHING_WRONG, {"GATEWAY_SERVER_PROT": "1", "GATEWAY_SERVER_HOST": "a b"})
    lines = EVERYTHING_WRONG.splitlines()

    def line(text: str, nth: int = 0) -> int:
        return [number for number, each in enumerate(lines, 1) if text in each][nth]

    expected = [
        (line("http:"), "broker.url: expected a URL that begins with redis://"),
        (line("parsecs"), "broker.timeout: expected a duration"),
        (line("namespaec"), "broker.namespaec: unknown key; did you mean 'namespace'?"),
        (line("a shop"), "broker.namespace: expected a namespace of 1 to 64 letters"),
        (line("70_000"), "server.port: expected 65535 or less but got 70000"),
        (line("console"), "server.console: expected true or false but got 1"),
        (line("max_body"), "server.max_body: expected a size"),
        (line("heartbeat"), "server.heartbeat: expected a duration"),
        (line("no_such"), "worker.handlers[0]: there is no module 'no_such_module'; looked for "),
        (line('3, "json"'), "worker.handlers[1]: expected a text but got 3"),
        (line("concurrency"), "worker.concurrency: expected 1 or more but got 0"),
        (line("two words"), "commands[0].stream: expected a stream name"),
        (line("missing.json"), "commands[0].schema: there is no file "),
        (line("customer +"), "commands[0].key: not an expression: it ends at character 16"),
        (line("dato"), "commands[0].routes[0].when: unknown variable 'dato'; did you mean 'data'?"),
        (line("shout"), "commands[0].routes[1].when: unknown function 'shout'"),
        (line("shout"), "commands[0].routes[1]: the key 'stream' is missing"),
        (line('"none"'), "commands[0].routes[2]: expected a table but got 'none'"),
        (line('"{}"'), "commands[0].routes[3].stream: expected a stream name"),
        (line('"{}"'), "commands[0].routes[3].when: the path /orders has no parameter 'order'"),
        (line("[[commands]]", 1), "commands[1]: the key 'path' is missing"),
        (line("stream = true"), "commands[1].stream: expected a text but got true"),
        (line("data["), "commands[1].key: not an expression"),
        (line("order ship"), "commands[2].type: expected a type"),
        (line("ordr"), "commands[2].key: the path /orders/{order}/ship has no parameter 'ordr'; "),
        (line("/ws/talk"), "commands[3].path: paths below /ws are the gateway's own"),
        (line('"/orders"', 1), "commands[4].path: '/orders' is there already, in commands[0]"),
        (line("size = 0"), "channels[0].history.size: expected 1 or more but got 0"),
        (line("size = 0"), "channels[0].history.ttl: expected more than 0 but got '0s'"),
        (line("orders:{id}"), "channels[1].pattern: 'orders:{id}' is ambiguous"),
        (line("commands:{id}"), "channels[2].pattern: 'commands:{id}:log' takes names that begin"),
        (line("orderz"), "feeds[0].channels[0]: no [[channels]] pattern covers 'orderz'"),
        (line("orderz"), "feeds[0].channels[1]: expected a text but got 4"),
        (line("orderz"), "feeds[0].channels[2]: unknown variable 'dat'; did you mean 'data'?"),
        (line("*.placed"), "feeds[1].type: expected an event type"),
        (line("channels = []"), "feeds[1].channels: expected at least one item"),
        (line("colour"), "feeds[1].colour: unknown key"),
        (line("s3cret"), "events.tokens[0]: expected a token"),
        (line('"yes"'), "events.anonymous: expected true or false but got 'yes'"),
        (line("[evnts]"), "evnts: unknown key; did you mean 'events'?"),
        ("GATEWAY_SERVER_HOST", "server.host: expected a host name or an address but got 'a b'"),
        ("GATEWAY_SERVER_PROT", "unknown variable; did you mean 'GATEWAY_SERVER_PORT'?"),
    ]
    assert len(found) == len(expected), "\n".join(found)
    for report, (place, message) in zip(found, expected, strict=True):
        assert report.startswith(f"{place}: {message}")


def test_what_is_secret_is_not_repeated(problems: Problems) -> None:
    report = "".join(
        problems(
            '[broker]\nurl = "redis:// :hunter2@db"\n[events]\ntokens = ["hunter 2"]',
            {"GATEWAY_BROKER_URL": "mysql://me:hunter2@db", "GATEWAY_EVENTS_TOKENS": "hunter 2"},
        )
    )
    assert report.count("expected") == 4
    assert "hunter" not in report


@pytest.mark.parametrize(
    ("text", "report"),
    [
        ("[server]\nport = = 1", "2: Invalid value"),
        ("[server]\nhost = 'x", "2: "),
        ('[server]\nhost = """x\n\n', "2: "),
        ("[server]\n[server]", "2: Cannot declare ('server',) twice"),
        ("a = 1\na = 2\nb = 3", "2: Cannot overwrite a value"),
        ("x = [\n1,\n2\n", "3: "),
        ("x = " + "[" * 5000 + "]" * 5000, "0: cannot be read: "),
        ("x = " + "9" * 5000, "0: cannot be read: "),
    ],
)
def test_a_syntax_error_has_its_line(problems: Problems, text: str, report: str) -> None:
    (found,) = problems(text)
    assert found.startswith(report)


@pytest.mark.parametrize("separator", ["\n", "\r\n"])
def test_lines_are_right_behind_values_of_many_lines(problems: Problems, separator: str) -> None:
    text = [
        "[broker]",
        'namespace = """\\',
        '  a"b""c \\""" [x] # y',
        '  """',  # 4
        "[worker]  # [nothing]",
        "handlers = [ # one ]",
        "  'json',   # two",
        "  'no#pe', '''",
        "  nope''' ]",  # 8 and 9
        "[server]",
        '"por\\u0074" = -1',  # 11
        "host.name = 'x'",  # 12
        "[[commands]]",
        'path = "/a#b"',  # 14
        'type = "a"',
        "stream = 'a'",
        "[[commands.routes]]",  # 17
        "when = 'true'",
        "[[commands.routes]]",
        "when = '1 +'",  # 20
        "stream = 'x'",
        "[[commands]]",
        "routes = [{ when = '', stream = 'x' }]",  # 23
    ]
    found = problems(separator.join(text))
    assert [report.partition(": ")[0] + report.partition(": ")[2][:20] for report in found] == [
        "2broker.namespace: ex",
        "8worker.handlers[1]: ",
        "8worker.handlers[2]: ",
        "11server.port: expecte",
        "12server.host: expecte",
        "14commands[0].path: ex",
        "17commands[0].routes[0",
        "20commands[0].routes[1",
        "22commands[1]: the key",
        "22commands[1]: the key",
        "22commands[1]: the key",
        "23commands[1].routes[0",
    ]


def test_no_file_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "gateway.toml", {})
    (problem,) = caught.value.problems
    assert problem.message == f"there is no such file; looked for {tmp_path / 'gateway.toml'}"


def test_a_directory_means_the_file_in_it(tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").write_text("[server]\nport = 1234")
    config = load(tmp_path, {})
    assert config.server.port == 1234
    assert config.file == tmp_path / "gateway.toml"


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").write_bytes(b"# fine\n# \xff\n")
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, {})
    assert str(caught.value) == f"{tmp_path / 'gateway.toml'}:2: expected UTF-8 text"


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be read: Not a directory"):
        load(tmp_path / "file" / "gateway.toml", {})


@pytest.mark.parametrize(
    ("text", "report"),
    [
        ("server = 1", "1: server: expected a table but got 1"),
        ("[[server]]", "1: server: expected a table but got a list"),
        ("commands = {}", "1: commands: expected a list but got a table"),
        ("broker.data_dir = ''", "1: broker.data_dir: expected a path but got ''"),
        ("worker.concurrency = 1.5", "1: worker.concurrency: expected a whole number but got 1.5"),
        ("file = 'x'", "1: file: unknown key"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused(problems: Problems, text: str, report: str) -> None:
    (found,) = problems(text)
    assert found.startswith(report)


def test_a_module_without_a_spec_is_none_to_find(
    problems: Problems, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such is `__main__`, and what was made while running."""
    monkeypatch.setitem(sys.modules, "made_up", ModuleType("made_up"))
    (found,) = problems("worker.handlers = ['made_up']")
    assert found.startswith("1: worker.handlers[0]: there is no module 'made_up'")


def test_a_constant_that_is_no_name_is_refused(problems: Problems) -> None:
    (found,) = problems("[[feeds]]\ntype = 'a'\nchannels = ['1']")
    assert found == "3: feeds[0].channels[0]: 1: expected a string or a list of them but got 1"


def test_an_empty_file_is_a_configuration(tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").write_text("")
    config, policy = load_checked(tmp_path, {})
    assert list(policy.commands) == []
    assert config.broker.data_dir == tmp_path / ".gateway"


def test_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "conf" / "schemas").mkdir(parents=True)
    (tmp_path / "conf" / "schemas" / "a.json").write_text("{}")
    (tmp_path / "conf" / "mine.py").write_text("")
    (tmp_path / "conf" / "gateway.toml").write_text(
        "[broker]\ndata_dir = '../data'\n[worker]\nhandlers = ['mine']\n"
        "[[commands]]\npath = '/a'\ntype = 'a'\nstream = 'a'\nschema = 'schemas/a.json'"
    )
    monkeypatch.chdir(tmp_path)
    config, _ = load_checked(Path("conf/gateway.toml"), {})
    assert config.broker.data_dir.resolve() == tmp_path / "data"
    assert config.broker.data_dir.is_absolute()
    assert config.commands[0].schema == tmp_path / "conf" / "schemas" / "a.json"


def test_variables_override_the_file(tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").write_text(
        "[broker]\nurl = 'redis://file'\n[server]\nport = 1\nhost = 'file'\n"
        "[events]\ntokens = ['aaaaaaaaaaaaaaaa']"
    )
    config = load(
        tmp_path,
        {
            "GATEWAY_BROKER_URL": "redis://variable",
            "GATEWAY_BROKER_DATA_DIR": "elsewhere",
            "GATEWAY_SERVER_PORT": "2",
            "GATEWAY_SERVER_CONSOLE": "false",
            "GATEWAY_SERVER_HEARTBEAT": "1.5",
            "GATEWAY_SERVER_MAX_BODY": "2KiB",
            "GATEWAY_SERVER_HOST": "",
            "GATEWAY_EVENTS_TOKENS": "bbbbbbbbbbbbbbbb, cccccccccccccccc",
            "PATH": "/bin",
        },
    )
    assert config.broker.url == "redis://variable"
    assert config.broker.data_dir == tmp_path / "elsewhere"
    assert config.server.port == 2
    assert config.server.console is False
    assert config.server.heartbeat == 1.5
    assert config.server.max_body == 2048
    assert config.server.host == "file"  # an empty variable counts as not set
    assert config.events.tokens == ("b" * 16, "c" * 16)


def test_variables_come_from_the_process_unless_others_are_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gateway.toml").write_text("")
    monkeypatch.setenv("GATEWAY_SERVER_PORT", "4321")
    assert load(tmp_path).server.port == 4321
    assert load(tmp_path, {}).server.port == 8080


@pytest.mark.parametrize(
    ("name", "value", "report"),
    [
        ("GATEWAY_SERVER_PORT", "http", "server.port: expected a whole number but got 'http'"),
        ("GATEWAY_SERVER_PORT", "-1", "server.port: expected 0 or more but got -1"),
        (
            "GATEWAY_SERVER_CONSOLE",
            "maybe",
            "server.console: expected true or false but got 'maybe'",
        ),
        ("GATEWAY_SERVER_HEARTBEAT", "0", "server.heartbeat: expected more than 0 but got '0'"),
        ("GATEWAY_SERVER_MAX_BODY", "1PiB", "server.max_body: expected a size such as"),
        (
            "GATEWAY_WORKER_HANDLERS",
            "a-b",
            "worker.handlers[0]: expected the name of a Python module",
        ),
        (
            "GATEWAY_WORKER_HANDLERS",
            "json,no_such",
            "worker.handlers[1]: there is no module 'no_such'",
        ),
        ("GATEWAY_COMMANDS", "x", "unknown variable"),
        ("GATEWAY_AUTH_JWT", "x", "unknown variable"),
        ("GATEWAY_AUTH_INTROSPECTION", "x", "unknown variable"),
    ],
)
def test_a_wrong_variable_is_reported_by_its_name(
    problems: Problems, name: str, value: str, report: str
) -> None:
    (found,) = problems("", {name: value})
    assert found.startswith(f"{name}: {report}")


def test_what_kubernetes_sets_beside_a_service_of_our_name_is_no_mistake(
    problems: Problems,
) -> None:
    assert not problems(
        "",
        {
            "GATEWAY_PORT": "tcp://10.0.0.1:8080",
            "GATEWAY_SERVICE_HOST": "10.0.0.1",
            "GATEWAY_SERVICE_PORT": "8080",
            "GATEWAY_SERVICE_PORT_HTTP": "8080",
            "GATEWAY_PORT_8080_TCP": "tcp://10.0.0.1:8080",
            "GATEWAY_PORT_8080_TCP_ADDR": "10.0.0.1",
        },
    )


@pytest.mark.parametrize(
    ("path", "report"),
    [
        ("orders", "expected a path that begins with / but got 'orders'"),
        ("/", "expected segments of letters"),
        ("/orders/", "expected segments of letters"),
        ("/or ders", "expected segments of letters"),
        ("/a/../b", "expected segments of letters"),
        ("/a/{B}", "expected segments of letters"),
        ("/a/{b}.json", "expected segments of letters"),
        ("/a/{b}/{b}", "expected each parameter once"),
        ("/{a}", "expected a literal first segment"),
        ("/events", "paths below /events are the gateway's own"),
        ("/openapi.json", "paths below /openapi.json are the gateway's own"),
        ("/taken", "'/taken' is there already, in commands[0]"),
        ("/taken/{x}/2", "'/taken/{x}/2' is ambiguous: '/taken/1/{x}' in commands[1]"),
    ],
)
def test_a_path_that_cannot_be_is_refused(problems: Problems, path: str, report: str) -> None:
    commands = "".join(
        f"[[commands]]\npath = '{each}'\ntype = 'a'\nstream = 'a'\n"
        for each in ("/taken", "/taken/1/{x}", path)
    )
    (found,) = problems(commands)
    assert found.startswith(f"10: commands[2].path: {report}")


@pytest.mark.parametrize(
    ("pattern", "report"),
    [
        ("", "expected a pattern of 1 to 255 characters"),
        ("a b", "expected letters"),
        ("a{B}", "expected letters"),
        ("{a}:{a}", "expected each parameter once"),
        ("x" * 256, "expected a pattern of 1 to 255 characters"),
        ("commands:x", "'commands:x' takes names that begin with commands:"),
        ("{any}:{thing}", "'{any}:{thing}' takes names that begin with commands:"),
        ("taken", "'taken' is there already, in channels[0]"),
        ("{x}b:1", "'{x}b:1' is ambiguous: 'a{x}:1' in channels[1]"),
    ],
)
def test_a_pattern_that_cannot_be_is_refused(problems: Problems, pattern: str, report: str) -> None:
    channels = [f"[[channels]]\npattern = '{each}'" for each in ("taken", "a{x}:1", pattern)]
    (found,) = problems("\n".join(channels))
    assert found.startswith(f"6: channels[2].pattern: {report}")


def test_a_literal_name_and_a_pattern_that_covers_it_go_together(problems: Problems) -> None:
    assert not problems("[[channels]]\npattern = 'a:{b}'\n[[channels]]\npattern = 'a:vip'")


def test_a_broken_schema_is_reported_where_it_is_named(tmp_path: Path, problems: Problems) -> None:
    (tmp_path / "bad.json").write_text('{"type": "strin"}')
    (tmp_path / "worse.json").write_text('{\n"type": \n}')
    template = "[[commands]]\npath = '/{0}'\ntype = 'a'\nstream = 'a'\nschema = '{0}.json'\n"
    bad, worse = problems(template.format("bad") + template.format("worse"))
    assert bad.startswith(f"5: commands[0].schema: {tmp_path / 'bad.json'}: at /type: ")
    assert worse.startswith(f"10: commands[1].schema: {tmp_path / 'worse.json'}:3: ")


def test_a_configuration_cannot_be_changed(tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").write_text("[[channels]]\npattern = 'a'\n")
    config = load(tmp_path, {})
    with pytest.raises(AttributeError, match="immutable"):
        config.server.port = 1  # type: ignore[misc]
    assert isinstance(config.channels, tuple)
    assert hash(config) == hash(load(tmp_path, {}))


def test_a_configuration_made_in_python_is_checked_too() -> None:
    config = Config(channels=[ChannelConfig(pattern="a"), ChannelConfig(pattern="a")])
    with pytest.raises(ConfigError) as caught:
        Policy.of(config)
    assert caught.value.problems == (
        Problem("configuration", 0, "channels[1].pattern: 'a' is there already, in channels[0]"),
    )
    assert isinstance(caught.value, GatewayError)
    policy = Policy.of(Config(channels=[ChannelConfig(pattern="a")]))
    assert policy.channels.match("a") is not None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("250ms", 0.25), ("30s", 30), ("10m", 600), ("1h", 3600), ("7d", 604_800), ("1.5 h", 5400)],
)
def test_durations(text: str, seconds: float) -> None:
    assert Seconds.parse(text) == seconds


@pytest.mark.parametrize(
    ("text", "size"), [("64KiB", 65_536), ("1MiB", 1 << 20), ("10MB", 10**7), ("1.5KiB", 1536)]
)
def test_sizes(text: str, size: int) -> None:
    assert Bytes.parse(text) == size


@pytest.mark.parametrize("value", ["", "h", "1 parsec", "-1s", "1e3", "9999999d", True, None, []])
def test_what_is_no_duration(value: object) -> None:
    with pytest.raises(ValueError, match="expected a duration"):
        Seconds.parse(value)


@pytest.mark.parametrize("value", ["", "MiB", "1 potato", "-1B", "1.5B", 1.5, True, None, []])
def test_what_is_no_size(value: object) -> None:
    with pytest.raises(ValueError, match="expected a size"):
        Bytes.parse(value)


@given(
    st.one_of(
        st.text(),
        st.floats(),
        st.integers(),
        st.just(10**400),  # no float
        st.from_regex(r"[0-9.]+ ?[a-zA-Z]+"),
    )
)
def test_a_measure_is_within_bounds_or_refused(value: object) -> None:
    for kind in (Seconds, Bytes):
        try:
            parsed = kind.parse(value)
        except ValueError:
            continue
        assert 0 <= parsed <= kind.MAX


def test_a_word_that_is_none_of_those_expected_is_told_with_them(tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").write_text(
        '[[commands]]\npath="/a"\ntype="a"\nstream="a"\ndurability="disk"\npriority="lwo"\n'
        '[[channels]]\npattern="a"\nmax_rate=0\n'
    )
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, {})
    assert sorted(
        (each.line, each.message.partition(": ")[2]) for each in caught.value.problems
    ) == [
        (5, "expected memory or acknowledged or fsync but got 'disk'"),
        (6, "expected normal or low but got 'lwo'; did you mean 'low'?"),
        (9, "expected more than 0 and up to 1000 but got 0"),
    ]


def test_what_is_no_origin_is_refused(problems: Problems) -> None:
    text = '[server]\norigins = [\n  "https://app.example/",\n  "app.example",\n  "*",\n]\n'
    assert problems(text) == [
        '3: server.origins[0]: expected an origin such as "https://app.example", without a path, '
        "or \"*\" but got 'https://app.example/'",
        '4: server.origins[1]: expected an origin such as "https://app.example", without a path, '
        "or \"*\" but got 'app.example'",
        '5: server.origins[2]: expected "*" alone: it allows all the others too',
    ]
    assert problems('[server]\norigins = ["*"]') == []
    assert problems('[server]\norigins = ["https://app.example", "http://[::1]:3000"]') == []
