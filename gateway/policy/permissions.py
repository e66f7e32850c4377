"""Permissions: who may send a command, and who may hear, publish to or read a channel.

A rule is a CEL expression; there is one for each command and action, or none. Where none is,
everybody may as long as there is no way to tell one from another, and nobody once there is.
"""

import logging
from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from gateway.errors import Forbidden, Unauthorized
from gateway.policy.expressions import EvaluationFailed, Expression, InvalidExpression
from gateway.policy.routes import ChannelMatch, CommandRoute
from gateway.principals import ANONYMOUS, ANYBODY, Caller
from gateway.report import did_you_mean

logger = logging.getLogger(__name__)

COMMAND_RULE_VARIABLES = ("principal", "request", "data", "path")
CHANNEL_RULE_VARIABLES = ("principal", "request", "channel")
"""Beside the pattern's own parameters."""
_MEMBERS = {"principal": ANONYMOUS.variables(), "request": ANYBODY.variables()}
"""What rules see of a caller: the same of everybody."""


def compile_rule(source: str, *, variables: Collection[str]) -> Expression:
    """Compile a rule. Raises `InvalidExpression`, also for what no caller has."""
    expression = Expression(source, variables=variables)
    for variable, members in _MEMBERS.items():
        for name in sorted((expression.mentions.get(variable) or frozenset()) - members.keys()):
            hint = did_you_mean(name, members) or f"; there are {', '.join(members)}"
            raise InvalidExpression(f"{variable!r} has no member {name!r}{hint}")
    return expression


def compile_verdict(source: str, *, variables: Collection[str]) -> Expression:
    """Compile a rule that says yes or no. Raises `InvalidExpression`, as far as it can be told."""
    rule = compile_rule(source, variables=variables)
    if "data" in rule.mentions:  # which may be of any type
        return rule
    samples: dict[str, Any] = {**dict.fromkeys(variables, "x"), "path": {}, **_MEMBERS}
    try:
        value = rule.value(samples)
    except EvaluationFailed:  # for a claim, perhaps, that nobody has here
        return rule
    if not isinstance(value, bool):
        raise InvalidExpression(f"expected a rule that is true or false, but it gives {value!r}")
    return rule


class Action(StrEnum):
    """What can be done with a channel."""

    SUBSCRIBE = "subscribe"
    PUBLISH = "publish"
    HISTORY = "history"


class ChannelRules(NamedTuple):
    """The rules of one channel pattern."""

    subscribe: Expression | None = None
    publish: Expression | None = None
    history: Expression | None = None

    def rule(self, action: Action) -> Expression | None:
        """Return the rule of an action. Who may subscribe may read, unless it is said otherwise."""
        if action is Action.HISTORY:
            return self.history or self.subscribe
        return self.subscribe if action is Action.SUBSCRIBE else self.publish


class Permissions:
    """All rules of a configuration."""

    def __init__(
        self,
        commands: Mapping[str, Expression],
        channels: Mapping[str, ChannelRules],
        *,
        secured: bool,
    ) -> None:
        """`commands` are by path, `channels` by pattern; `secured`: there is authentication."""
        self._commands = commands
        self._channels = channels
        self.secured = secured

    def check_command(
        self, route: CommandRoute, caller: Caller, data: Any, parameters: Mapping[str, str]
    ) -> None:
        """Return if the caller may send this command. Raises `Forbidden`, `Unauthorized`."""
        rule = self._commands.get(route.path)
        if rule is None and not self.secured:
            return
        if rule is None or not _holds(rule, caller, {"data": data, "path": parameters}):
            raise _refusal(caller, f"to send {route.type}")

    def check_channel(self, action: Action, name: str, match: ChannelMatch, caller: Caller) -> None:
        """Return if the caller may do this with a channel. Raises `Forbidden`, `Unauthorized`."""
        rule = self._channels.get(match.config.pattern, _NO_RULES).rule(action)
        if rule is None and not self.secured:
            return
        if rule is None or not _holds(rule, caller, {"channel": name, **match.parameters}):
            raise _refusal(caller, f"to {_DEEDS[action]} the channel {name}")


_NO_RULES = ChannelRules()
_DEEDS = {
    Action.SUBSCRIBE: "subscribe to",
    Action.PUBLISH: "publish to",
    Action.HISTORY: "read the history of",
}


def _holds(rule: Expression, caller: Caller, more: Mapping[str, Any]) -> bool:
    """Evaluate a rule. One that cannot be evaluated for these values allows nothing."""
    variables = {
        "principal": caller.principal.variables(),
        "request": caller.variables(),
        **more,
    }
    try:
        return rule.boolean(variables)
    except EvaluationFailed as error:
        logger.debug("a rule has no answer, which counts as no: %s", error)
        return False


def _refusal(caller: Caller, deed: str) -> Forbidden | Unauthorized:
    if caller.principal.anonymous:
        return Unauthorized(f"expected credentials of somebody who is allowed {deed}")
    return Forbidden(f"you are not allowed {deed}")
