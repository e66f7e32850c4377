"""Finds the handlers in the configured modules, and says what is wrong with them."""

import importlib
import inspect
import sys
import traceback
import typing
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from gateway.commands import Command
from gateway.errors import ConfigError, Problem
from gateway.worker.handlers import MARK, Exceptions, Function, Mark
from gateway.worker.retries import Backoff


@dataclass(frozen=True, slots=True)
class Handler:
    """The function that handles the commands of one type, and how."""

    type: str
    function: Function
    decoder: msgspec.json.Decoder[Any]
    """Of the command's data."""
    is_async: bool
    retries: int
    timeout: float | None
    backoff: Backoff
    never_retry: Exceptions
    keep_order: bool
    file: str
    line: int

    @property
    def attempts(self) -> int:
        """How often a command may be tried."""
        return self.retries + 1


class Handlers:
    """The handlers of a worker, by the type of their commands."""

    def __init__(self, handlers: Iterable[Handler]) -> None:
        self._by_type = {handler.type: handler for handler in handlers}

    def get(self, type: str) -> Handler | None:
        """Return the handler of a type, or None."""
        return self._by_type.get(type)

    def __iter__(self) -> Iterator[Handler]:
        return iter(self._by_type.values())

    def __len__(self) -> int:
        return len(self._by_type)

    def missing(self, types: Iterable[str]) -> list[str]:
        """Return those of the configured types that nobody handles."""
        return sorted(set(types) - self._by_type.keys())

    def idle(self, types: Iterable[str]) -> list[Problem]:
        """Return a warning for each handler of a type that is not configured."""
        configured = set(types)
        return [
            Problem(each.file, each.line, f"no [[commands]] has the type {each.type!r}")
            for each in self
            if each.type not in configured
        ]


def load(modules: Sequence[str], base_dir: Path) -> Handlers:
    """Import the modules, with `base_dir` first on the path, and return the handlers in them.

    Handlers may import their siblings at the top of a module; the path is as before afterwards.

    Raises:
        ConfigError: with every module that cannot be imported and every handler that cannot be
            used, and where each of them is.
    """
    problems: list[Problem] = []
    handlers = _collect(_functions(modules, base_dir.resolve(), problems), problems)
    if problems:
        raise ConfigError(problems)
    return handlers


def handlers_of(*functions: Function) -> Handlers:
    """Return the handlers that these marked functions are. Raises `ConfigError`."""
    problems: list[Problem] = []
    handlers = _collect(functions, problems)
    if problems:
        raise ConfigError(problems)
    return handlers


def _collect(functions: Iterable[Function], problems: list[Problem]) -> Handlers:
    found: dict[str, Handler] = {}
    for function in functions:
        for mark in getattr(function, MARK):
            handler = _handler(function, mark, problems)
            first = handler and found.setdefault(mark.type, handler)
            if handler and first and first is not handler:
                there = f"there is one at {first.file}:{first.line} already"
                message = f"expected one handler of {mark.type!r} but {there}"
                problems.append(Problem(handler.file, handler.line, message))
    return Handlers(found.values())


def _functions(
    modules: Sequence[str], base_dir: Path, problems: list[Problem]
) -> Iterator[Function]:
    """Give each marked function once, though several of the modules may hold it."""
    seen: set[int] = set()
    for name in modules:
        module = _import(name, base_dir, problems)
        if module is None:
            continue
        for value in list(vars(module).values()):
            if inspect.isfunction(value) and hasattr(value, MARK) and id(value) not in seen:
                seen.add(id(value))
                yield value


def _import(name: str, base_dir: Path, problems: list[Problem]) -> ModuleType | None:
    if name.partition(".")[0] in sys.stdlib_module_names:
        problems.append(
            Problem(
                name, 0, "is the name of a module of Python itself; call the handlers otherwise"
            )
        )
        return None
    try:
        with _first_on_path(base_dir):
            _forget_namesake(name.partition(".")[0], base_dir)
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and f"{name}.".startswith(f"{error.name}."):
            message = f"there is no such module in {base_dir}, nor is it installed"
            problems.append(Problem(name, 0, message))
        else:
            problems.append(_import_problem(name, base_dir, error))
    except (Exception, SystemExit) as error:  # noqa: BLE001  whatever a user's module does
        problems.append(_import_problem(name, base_dir, error))
    return None


@contextmanager
def _first_on_path(directory: Path) -> Iterator[None]:
    entry = str(directory)
    sys.path.insert(0, entry)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(entry)


def _forget_namesake(top: str, base_dir: Path) -> None:
    """Drop an imported module that would stand in for the one of this name in `base_dir`."""
    loaded = sys.modules.get(top)
    here = [path for path in (base_dir / f"{top}.py", base_dir / top) if path.exists()]
    if loaded is None or not here:
        return
    origin = getattr(loaded, "__file__", None) or next(iter(getattr(loaded, "__path__", [])), "")
    if base_dir in Path(origin).resolve().parents:
        return
    for name in [each for each in sys.modules if each == top or each.startswith(f"{top}.")]:
        del sys.modules[name]


def _import_problem(name: str, base_dir: Path, error: BaseException) -> Problem:
    """Say what went wrong in a module: at the line of the user's code that led there."""
    if isinstance(error, SyntaxError) and error.filename:
        return Problem(error.filename, error.lineno or 0, f"{type(error).__name__}: {error.msg}")
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "importlib" not in frame.filename and frame.filename != __file__
    ]
    theirs = [frame for frame in frames if frame.filename.startswith(str(base_dir))] or frames
    what = f"{type(error).__name__}: {error}"
    if not theirs:
        return Problem(name, 0, what)
    return Problem(theirs[-1].filename, theirs[-1].lineno or 0, what)


def _handler(function: Function, mark: Mark, problems: list[Problem]) -> Handler | None:
    code = inspect.unwrap(function).__code__
    try:
        decoder = msgspec.json.Decoder(_payload_type(function))
    except (TypeError, ValueError, NameError) as error:
        problems.append(Problem(code.co_filename, code.co_firstlineno, str(error)))
        return None
    return Handler(
        type=mark.type,
        function=function,
        decoder=decoder,
        is_async=inspect.iscoroutinefunction(inspect.unwrap(function)),
        retries=mark.retries,
        timeout=mark.timeout,
        backoff=mark.backoff,
        never_retry=mark.never_retry,
        keep_order=mark.keep_order,
        file=code.co_filename,
        line=code.co_firstlineno,
    )


def _payload_type(function: Function) -> Any:
    """Return the `T` of the annotation `Command[T]`; `Any` without one.

    Raises `TypeError` or `NameError`, with a sentence about the handler.
    """
    name = getattr(function, "__name__", "the handler")
    parameters = list(inspect.signature(function).parameters.values())
    needed = [each for each in parameters if each.default is each.empty]
    if not parameters or len(needed) > 1 or parameters[0].kind is parameters[0].KEYWORD_ONLY:
        found = f"{name}{inspect.signature(function)}"
        raise TypeError(f"expected {name} to take one command but it is {found}")
    try:
        annotation = typing.get_type_hints(function).get(parameters[0].name, Command)
    except NameError as error:
        raise NameError(f"expected annotations of {name} that can be looked up: {error}") from error
    if annotation is Command or annotation is Any:
        return Any
    if typing.get_origin(annotation) is not Command:
        raise TypeError(f"expected {name} to take a Command[...] but it takes {annotation!r}")
    (payload,) = typing.get_args(annotation)
    kind = msgspec.inspect.type_info(payload)
    if isinstance(kind, msgspec.inspect.CustomType):
        raise TypeError(
            f"expected {name} to take a type that JSON can be decoded as, but {payload!r} is none; "
            "make it a msgspec.Struct, a dataclass or a TypedDict"
        )
    return payload
