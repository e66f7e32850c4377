"""Limits: which of them concern a request, whose allowance it uses, and how they are told. No I/O.

The headers are those of https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/:
lists of structured fields (RFC 9651), in which each item is named after a limit.
"""

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import NamedTuple

from gateway.addresses import block
from gateway.buckets import Charge, Level
from gateway.config import Config, LimitConfig
from gateway.policy.expressions import EvaluationFailed, Expression
from gateway.policy.permissions import compile_verdict
from gateway.principals import AuthType, Caller
from gateway.report import Report, did_you_mean
from gateway.settings import Of, Per
from gateway.tomllines import KeyPath

logger = logging.getLogger(__name__)

LIMIT_VARIABLES = ("principal", "request")
LONGEST_WAIT = 60.0
"""Seconds. Clients and proxies on the way give a request up that takes longer."""
MAX_SUBJECT = 120
"""Characters of a bucket's name; of a longer one its digest is used."""


class Deed(NamedTuple):
    """What somebody is about to do."""

    of: Of
    caller: Caller
    command: str = ""
    """The type of the command, if it is one."""
    cost: int = 1
    """How often it is done at once."""


class Due(NamedTuple):
    """A limit that concerns a deed, and what it is charged."""

    limit: "Limit"
    charge: Charge


def _api_key(deed: Deed) -> str | None:
    principal = deed.caller.principal
    return (principal.token_id or principal.name) if principal.type is AuthType.API_KEY else None


_SUBJECTS: Mapping[Per, Callable[[Deed], str | None]] = {
    # Who shows no credentials counts as its address: otherwise one stranger could use up what all
    # strangers have together.
    Per.PRINCIPAL: lambda deed: deed.caller.principal.name or f"@{block(deed.caller.address)}",
    Per.API_KEY: _api_key,
    Per.IP: lambda deed: block(deed.caller.address),
    Per.COMMAND: lambda deed: deed.command,
    Per.CONNECTION: lambda deed: deed.caller.connection,
}
"""Whose allowance a deed uses; None for nobody's, then the limit does not concern it."""


class Limit:
    """One configured limit."""

    __slots__ = (
        "_subjects",
        "_types",
        "_when",
        "burst",
        "config",
        "interval",
        "name",
        "patience",
    )

    def __init__(self, config: LimitConfig, when: Expression | None = None) -> None:
        self.config = config
        self.name = config.name
        self.interval = 1 / config.rate
        self.burst = config.burst or max(1, math.floor(config.rate))
        queue = config.queue
        self.patience = min(float(queue.wait), queue.size * self.interval) if queue else 0.0
        per = sorted(set(config.per) - {Per.EVERYTHING})
        self._subjects = [_SUBJECTS[each] for each in per]
        self._types = frozenset(config.commands)
        self._when = when

    @property
    def policy(self) -> str:
        """Its item of `RateLimit-Policy`: so many in so many seconds, and no more at once."""
        rate = self.config.rate
        times = min(rate.times, self.burst)
        seconds = math.ceil(rate.seconds * times / rate.times)
        return f'"{self.name}";q={times};w={seconds}'

    def due(self, deed: Deed) -> Due | None:
        """Return what a deed costs; None if the limit does not concern it."""
        if self._types and deed.command not in self._types:
            return None
        subjects = []
        for subject in self._subjects:
            name = subject(deed)
            if name is None:
                return None
            subjects.append(name)
        if not self._holds(deed.caller):
            return None
        key = bounded(f"{self.name}:{'|'.join(subjects)}")
        return Due(self, Charge(key, self.interval, self.burst, self.patience, deed.cost))

    def _holds(self, caller: Caller) -> bool:
        """Tell whether it is for this caller. One that cannot be decided is: limits fail shut."""
        if self._when is None:
            return True
        variables = {"principal": caller.principal.variables(), "request": caller.variables()}
        try:
            return self._when.boolean(variables)
        except EvaluationFailed as error:
            logger.debug("whom the limit %s concerns cannot be told: %s", self.name, error)
            return True


class Limits:
    """All limits of a configuration."""

    def __init__(self, limits: Iterable[Limit] = ()) -> None:
        self._limits = tuple(limits)
        self._of = {of: [each for each in self._limits if each.config.of is of] for of in Of}

    def __iter__(self) -> Iterator[Limit]:
        return iter(self._limits)

    def __bool__(self) -> bool:
        return bool(self._limits)

    def concern(self, of: Of) -> bool:
        """Return whether any is of this kind."""
        return bool(self._of[of])

    def due(self, deeds: Iterable[Deed]) -> list[Due]:
        """Return what deeds cost that are done together."""
        return [
            due
            for deed in deeds
            if deed.cost
            for limit in self._of[deed.of]
            if (due := limit.due(deed)) is not None
        ]


def bounded(name: str) -> str:
    """Return a name that is short enough for a key, whatever it was made of."""
    if len(name) <= MAX_SUBJECT:
        return name
    kept, _, _ = name.partition(":")
    return f"{kept}:{sha256(name.encode(errors='surrogatepass')).hexdigest()}"


def headers(dues: Sequence[Due], levels: Sequence[Level]) -> dict[str, str]:
    """Return the headers that tell how limits stand: `t` is when there is more, or all, again."""
    told = [
        f'"{due.limit.name}";r={level.remaining};t={math.ceil(level.early or level.full_in)}'
        for due, level in zip(dues, levels, strict=True)
    ]
    return {
        "ratelimit": ", ".join(told),
        "ratelimit-policy": ", ".join(due.limit.policy for due in dues),
    }


# From the configuration


def compile_limits(config: Config, report: Report) -> Limits:
    """Return the limits; what is wrong with one is added to the report."""
    types = {command.type for command in config.commands}
    names: dict[str, int] = {}
    limits = []
    for index, limit in enumerate(config.limits):
        at: KeyPath = ("limits", index)
        _check_name(limit.name, index, names, (*at, "name"), report)
        _check_per(limit, (*at, "per"), report)
        _check_commands(limit, types, (*at, "commands"), report)
        if limit.queue and limit.queue.wait > LONGEST_WAIT:
            wait = f"{LONGEST_WAIT:g} seconds but got {limit.queue.wait:g}"
            report.add((*at, "queue", "wait"), f"expected up to {wait}")
        when = None
        if limit.when is not None:
            with report.guard(*at, "when"):
                when = compile_verdict(limit.when, variables=LIMIT_VARIABLES)
        if limit.rate:  # otherwise it was none, which has been told
            limits.append(Limit(limit, when))
    return Limits(limits)


def _check_name(name: str, index: int, names: dict[str, int], at: KeyPath, report: Report) -> None:
    earlier = names.setdefault(name, index)
    if earlier != index:
        report.add(at, f"{name!r} is there already, in limits[{earlier}]")


def _check_per(limit: LimitConfig, at: KeyPath, report: Report) -> None:
    if Per.EVERYTHING in limit.per and len(set(limit.per)) > 1:
        report.add(at, "expected 'everything' alone, or others without it")
    if Per.COMMAND in limit.per and limit.of is not Of.COMMANDS:
        report.add(at, f"expected 'command' for a limit of commands only, but it is of {limit.of}")


def _check_commands(limit: LimitConfig, types: Iterable[str], at: KeyPath, report: Report) -> None:
    if limit.commands and limit.of is not Of.COMMANDS:
        report.add(at, f"expected no commands: the limit is of {limit.of}")
        return
    known = set(types)
    for index, name in enumerate(limit.commands):
        if name not in known:
            hint = did_you_mean(name, known)
            report.add((*at, index), f"no [[commands]] has the type {name!r}{hint}")


def describe(limits: Limits) -> list[Mapping[str, object]]:
    """Return the limits as plain data."""
    return [
        {
            "name": each.name,
            "of": str(each.config.of),
            "per": [str(per) for per in each.config.per],
            "rate": str(each.config.rate),
            "burst": each.burst,
            "commands": list(each.config.commands),
            "queue": {"size": each.config.queue.size, "seconds": float(each.config.queue.wait)}
            if each.config.queue
            else None,
            "when": each.config.when,
        }
        for each in limits
    ]
