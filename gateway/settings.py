"""What a single setting may be: durations, sizes, names, tokens.

What a value may be stands beside it, as an annotation that `configfile.py` reads.
"""

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Self

from msgspec import Meta


class Seconds(float):
    """A duration: `"250ms"`, `"30s"`, `"10m"`, `"1h"`, `"7d"`, or a number of seconds."""

    MAX = 3650 * 86_400
    """Ten years. In milliseconds it stays far below the 64 bits that Redis has for a time."""

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read a value of the file. Raises `ValueError`."""
        seconds: float | None = None
        if isinstance(value, str):
            seconds = _measure(value, _TIMES)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            seconds = value
        if seconds is None or not 0 <= seconds <= cls.MAX:  # also refuses nan
            raise ValueError('expected a duration such as "250ms", "30s", "10m", "1h" or "7d"')
        return cls(seconds)


class Bytes(int):
    """A size: `"64KiB"`, `"1MiB"`, `"10MB"`, or a number of bytes."""

    MAX = 1 << 40
    """A tebibyte: more is a slip of the pen."""

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read a value of the file. Raises `ValueError`."""
        size: float | None = None
        if isinstance(value, str):
            size = _measure(value, _SIZES)
        elif isinstance(value, int) and not isinstance(value, bool):
            size = value
        if size is None or not 0 <= size <= cls.MAX or size % 1:
            raise ValueError('expected a size such as "64KiB", "1MiB", "10MB" or a number of bytes')
        return cls(size)


class Secret(str):
    """A text that nobody shall read by accident.

    Whoever prints it, logs it or puts it into a sentence gets stars. It is compared, cut and
    encoded as any other text.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"

    def __str__(self) -> str:
        return "***"

    def __format__(self, spec: str) -> str:
        return format("***", spec)


class Frequency(float):
    """How often: `"100/s"`, `"600/m"`, `"5000/h"`, `"10000/d"`. As a number, times a second."""

    MAX = 1_000_000
    """Times a second: more is no limit."""

    times: int
    seconds: int

    def __new__(cls, times: int, seconds: int = 1) -> Self:
        frequency = super().__new__(cls, times / seconds)
        frequency.times, frequency.seconds = times, seconds
        return frequency

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read a value of the file. Raises `ValueError`."""
        found = _FREQUENCY.fullmatch(value) if isinstance(value, str) else None
        times, seconds = (int(found[1]), _TIMES[found[2]]) if found else (0, 1)
        if not 0 < times / seconds <= cls.MAX:
            raise ValueError('expected a rate such as "100/s", "600/m", "5000/h" or "10000/d"')
        return cls(times, int(seconds))

    def __str__(self) -> str:
        units = {seconds: unit for unit, seconds in _TIMES.items()}
        return f"{self.times}/{units[self.seconds]}"


_FREQUENCY = re.compile(r"([0-9]{1,12}) ?/ ?([smhd])", re.ASCII)
_TIMES = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_SIZES = {
    "B": 1,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KiB": 1 << 10,
    "MiB": 1 << 20,
    "GiB": 1 << 30,
}
_MEASURE = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?) ?([A-Za-z]{0,3})", re.ASCII)


def _measure(text: str, units: Mapping[str, float]) -> float | None:
    found = _MEASURE.fullmatch(text)
    if not found:
        return None
    number, unit = found.groups()
    if not unit:  # a plain number in an environment variable
        return float(number)
    return float(number) * units[unit] if unit in units else None


def _text(pattern: str, description: str, *, secret: bool = False) -> Meta:
    """What a text must look like.

    A secret one is not repeated in the report of problems, is a `Secret` once it was read, and can
    be in a file of its own, which the setting `<name>_file` names.
    """
    return Meta(pattern=rf"^(?:{pattern})\Z", description=description, extra={"secret": secret})


Period = Annotated[Seconds, Meta(extra={"positive": True})]
Size = Annotated[Bytes, Meta(extra={"positive": True})]
Count = Annotated[int, Meta(ge=1)]
BrokerUrl = Annotated[
    str,
    _text(
        r"(redis|rediss|unix|redis\+sentinel|rediss\+sentinel)://\S+",
        "a URL that begins with redis://, rediss://, unix:// or redis+sentinel://",
        secret=True,
    ),
]
Namespace = Annotated[
    str, _text(r"[A-Za-z0-9_.:-]{1,64}", "a namespace of 1 to 64 letters, digits and _.:-")
]
StreamName = Annotated[
    str, _text(r"[A-Za-z0-9_.-]{1,128}", "a stream name of 1 to 128 letters, digits and _.-")
]
"""It is part of keys, where colons and braces have meanings."""
TypeName = Annotated[
    str, _text(r"[!-)+-~]{1,255}", "a type of 1 to 255 visible characters such as order.place")
]
FeedType = Annotated[
    str,
    _text(
        r"\*|[!-)+-~]{1,255}?(\.\*)?",
        "an event type such as order.placed, or a prefix of one such as order.*",
    ),
]
HostName = Annotated[
    str,
    _text(
        r"[A-Za-z0-9_.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]",
        'a host name or an address such as "gateway.example" or "[::1]", without a port',
    ),
]
Host = Annotated[str, _text(r"\S+", "a host name or an address")]
CookieName = Annotated[
    str, _text(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}", "the name of a cookie, such as session")
]
Origin = Annotated[
    str,
    _text(
        r"\*|https?://([A-Za-z0-9_.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?",
        'an origin such as "https://app.example", without a path, or "*"',
    ),
]
ModuleName = Annotated[
    str,
    _text(
        r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*",
        "the name of a Python module such as handlers or shop.handlers",
    ),
]
Token = Annotated[
    str,
    _text(
        r"[!-+\--~]{16,4096}",
        "a token of 16 or more visible characters without a comma",
        secret=True,
    ),
]
SharedSecret = Annotated[
    str, _text(r"[!-~]{1,4096}", "a secret of visible characters", secret=True)
]
Rate = Annotated[float, Meta(gt=0, le=1000)]
"""Times a second."""
MetricsFor = Annotated[str, _text("anybody|operators|nobody", "anybody, operators or nobody")]
LimitName = Annotated[
    str, _text(r"[A-Za-z0-9_.-]{1,64}", "a name of 1 to 64 letters, digits and _.-")
]
"""It is part of keys, of headers and of metrics."""
LogLevel = Annotated[str, _text("debug|info|warning|error", "debug, info, warning or error")]
LogFormat = Annotated[str, _text("text|json", "text or json")]
Expressions = Annotated[Sequence[str], Meta(min_length=1)]


class Per(StrEnum):
    """Who or what has an allowance of its own."""

    PRINCIPAL = "principal"
    API_KEY = "api_key"
    IP = "ip"
    COMMAND = "command"
    CONNECTION = "connection"
    EVERYTHING = "everything"


class Of(StrEnum):
    """What a limit counts."""

    COMMANDS = "commands"
    SUBSCRIPTIONS = "subscriptions"
    CONNECTIONS = "connections"
    EVENTS = "events"


Holders = Annotated[Sequence[Per], Meta(min_length=1, extra={"or_one": True})]
"""In the file a list, or one alone."""
