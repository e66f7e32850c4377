"""Expressions: CEL, compiled once. The only place that imports `cel`.

CEL (https://github.com/google/cel-spec) has no loops and no side effects, so an expression that
an operator writes always ends. What strangers can do is send much data: see `MAX_NODES`.
"""

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

import cel

from gateway.policy.sizes import too_large
from gateway.report import did_you_mean

MAX_SOURCE = 2000
"""Characters. The parser recurses: a source of tens of thousands overflows its stack."""

MAX_NODES = 2000
"""Values, in what an expression looks at. `map()` and `filter()` copy their result for each item,
so 1,000 items take 50 ms. It also bounds the depth, which could overflow the converter's stack."""

Variables = Mapping[str, Any]


class InvalidExpression(ValueError):
    """The source is no expression, or speaks of what there is not."""


class EvaluationFailed(Exception):
    """The expression has no value, or one of another type, for this data. `str()` says why."""


class Expression:
    """A compiled expression over the named variables.

    The simplest forms (a literal, a field, and both joined by `+`) are evaluated in Python: same
    values, and a hundredth of the 15 microseconds that a call of `cel` takes. Safe for concurrent
    use.
    """

    __slots__ = ("_native", "_program", "mentions", "source")

    def __init__(self, source: str, *, variables: Collection[str]) -> None:
        """Compile `source`. Raises `InvalidExpression`."""
        self.source = source
        self._program = _compile(source)
        self.mentions = _mentions(source, self._program, variables)
        """For each variable that it uses, the members that it looks at; None for all of it."""
        self._native = _simple_form(source, variables)

    def value(self, variables: Variables) -> Any:
        """Return what the expression gives. Raises `EvaluationFailed`."""
        if self._native:
            value = self._native(variables)
            if value is not None:
                return value
        return self._execute(variables)

    def boolean(self, variables: Variables) -> bool:
        """Return whether it holds. Raises `EvaluationFailed`."""
        value = self.value(variables)
        if not isinstance(value, bool):
            raise self._failed(f"expected true or false but got {_shown(value)}")
        return value

    def text(self, variables: Variables) -> str:
        """Return a string. Raises `EvaluationFailed`."""
        value = self.value(variables)
        if not isinstance(value, str):
            raise self._failed(f"expected a string but got {_shown(value)}")
        return value

    def texts(self, variables: Variables) -> list[str]:
        """Return the strings of a list, or the only string. Raises `EvaluationFailed`."""
        value = self.value(variables)
        if isinstance(value, str):
            return [value]
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return value
        raise self._failed(f"expected a string or a list of them but got {_shown(value)}")

    def _execute(self, variables: Variables) -> Any:
        given = {name: _part(variables[name], self.mentions[name]) for name in self.mentions}
        if too_large(given, MAX_NODES):
            raise self._failed(f"it looks at more than {MAX_NODES} values")
        try:
            return self._program.execute(given)
        except KeyError as error:
            raise self._failed(f"there is no member {error}") from None
        except (LookupError, TypeError, ValueError, ArithmeticError, RuntimeError) as error:
            raise self._failed(_sentence(error)) from None

    def _failed(self, reason: str) -> EvaluationFailed:
        return EvaluationFailed(f"{self.source}: {reason}")


def _compile(source: str) -> cel.Program:
    if len(source) > MAX_SOURCE:
        raise InvalidExpression(
            f"expected an expression of at most {MAX_SOURCE} characters but got {len(source)}"
        )
    try:
        return cel.compile(source)
    except ValueError as error:
        raise InvalidExpression(_syntax_problem(error)) from None


_SYNTAX = re.compile(r"ERROR: <input>:(\d+):(\d+): (?:Syntax error: )?(.*)")


def _syntax_problem(error: ValueError) -> str:
    found = _SYNTAX.search(str(error))
    if not found:
        return f"not an expression: {_sentence(error)}"
    _, column, message = found.groups()
    message = message.partition(" expecting {")[0]
    if message == "mismatched input '<EOF>'":
        return f"not an expression: it ends at character {column}, and something is missing"
    return f"not an expression: {message} at character {column}"


_FUNCTIONS = frozenset(
    [
        *("size", "contains", "startsWith", "endsWith", "matches"),
        *("string", "int", "uint", "double", "bytes", "type", "dyn", "timestamp", "duration"),
        *("getFullYear", "getMonth", "getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear"),
        *("getHours", "getMinutes", "getSeconds", "getMilliseconds"),
    ]
)
"""What the implementation has; macros such as `has` and `exists` are gone after parsing."""

_QUOTED = re.compile(
    r"""
    //[^\n]*                                    # a comment
    | [bB]?[rR][bB]? (?: '''.*?''' | \"{3}.*?\"{3} | '[^'\n]*' | "[^"\n]*" )
    | [bB]? (?: '''(?:[^\\]|\\.)*?''' | \"{3}(?:[^\\]|\\.)*?\"{3}
              | '(?:[^'\\\n]|\\.)*' | "(?:[^"\\\n]|\\.)*" )
    """,
    re.DOTALL | re.VERBOSE,
)
_MACRO = re.compile(
    r"\.\s*(?:all|exists|exists_one|existsOne|map|filter)\s*\(\s*([A-Za-z_]\w*)\s*,"
)


def _mentions(
    source: str, program: cel.Program, variables: Collection[str]
) -> dict[str, frozenset[str] | None]:
    """Return what the program looks at. Raises `InvalidExpression` for what there is not."""
    for function in program.functions():
        if function.isidentifier() and function not in _FUNCTIONS:
            hint = did_you_mean(function, _FUNCTIONS)
            raise InvalidExpression(f"unknown function {function!r}{hint}")
    bare = _QUOTED.sub("''", source)
    bound = set(_MACRO.findall(bare))
    used = set(program.variables())
    for name in sorted(used - bound - set(variables)):
        hint = did_you_mean(name, variables) or f"; there are {', '.join(sorted(variables))}"
        raise InvalidExpression(f"unknown variable {name!r}{hint}")
    return {name: _members(bare, name) for name in sorted(used & set(variables))}


def _members(bare: str, variable: str) -> frozenset[str] | None:
    """Return the members that are looked at, or None if the variable is used in another way."""
    members: set[str] = set()
    for use in re.finditer(rf"(?<![\w.]){variable}\b(?:\s*\.\s*([A-Za-z_]\w*)(?!\s*\(|\w))?", bare):
        if not use.group(1):
            return None
        members.add(use.group(1))
    return frozenset(members) or None


def _part(value: Any, members: frozenset[str] | None) -> Any:
    """Return only what is looked at, so that the cost does not grow with the rest of the data."""
    if members is None or type(value) is not dict:
        return value
    return {name: value[name] for name in members if name in value}


_LITERAL = r"""'[^'\\\n]*'|"[^"\\\n]*\""""
_FIELD = r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*"
_TERM = re.compile(rf"\s*(?:({_LITERAL})|({_FIELD}))\s*", re.ASCII)


def _simple_form(
    source: str, variables: Collection[str]
) -> Callable[[Variables], str | None] | None:
    """Return a function for a simple form that compiles, or None.

    The function returns None where the value is not a string throughout: then `cel` decides.
    """
    parts: list[str | tuple[str, ...]] = []
    at = 0
    while True:
        term = _TERM.match(source, at)
        if not term:
            return None
        literal, field = term.groups()
        parts.append(literal[1:-1] if literal else tuple(field.split(".")))
        if field and parts[-1][0] not in variables:
            return None
        at = term.end()
        if at == len(source):
            return _joined(parts)
        if source[at] != "+":
            return None
        at += 1


def _joined(parts: list[str | tuple[str, ...]]) -> Callable[[Variables], str | None]:
    if all(isinstance(part, str) for part in parts):
        constant = "".join(part for part in parts if isinstance(part, str))
        return lambda variables: constant

    def join(variables: Variables) -> str | None:
        text = ""
        for part in parts:
            if type(part) is str:
                text += part
                continue
            value: Any = variables
            for name in part:
                if type(value) is not dict or name not in value:
                    return None
                value = value[name]
            if type(value) is not str:
                return None
            text += value
        return text

    return join


def _sentence(error: Exception) -> str:
    """Return the first sentence of what the implementation says."""
    message = re.sub(r"^Failed to execute expression '.*': (?=Internal)", "", str(error))
    found = re.match(r"Undefined variable or function: ('\w+')", message)
    if found:  # names are checked when compiling, so it is there for other types
        return f"{found.group(1)} cannot be applied to these values"
    return re.split(r"\.\s|\n", message, maxsplit=1)[0].rstrip(".")[:200]


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else repr(value)[:80]
