"""The loader: `gateway.toml` and the environment → `Config`, or every problem at once.

This is the only place that reads the environment. `GATEWAY_<SECTION>_<KEY>` overrides one value
of the file: `GATEWAY_BROKER_URL`, `GATEWAY_SERVER_PORT`, `GATEWAY_EVENTS_TOKENS`; a secret can be
in a file that `GATEWAY_EVENTS_TOKENS_FILE` names. An empty
variable counts as not set, because that is what `${NAME:-}` in a compose file makes of it.
"""

import importlib.util
import math
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import inspect

from gateway import secretfiles
from gateway.config import Config
from gateway.errors import ConfigError, Problem
from gateway.report import Report, did_you_mean
from gateway.secretfiles import SUFFIX, is_secret
from gateway.settings import Bytes, Frequency, Seconds, Secret
from gateway.tomllines import KeyPath, lines_of

FILE_NAME = "gateway.toml"
PREFIX = "GATEWAY_"


def load(path: Path, environ: Mapping[str, str] | None = None) -> Config:
    """Return the configuration in `path` (a file, or the directory of a `gateway.toml`).

    `environ` is the process's own environment unless another one is given.

    Raises:
        ConfigError: with every problem that can be seen without compiling the policy.
    """
    config, report = read(path, environ)
    report.settle()
    return config


def read(path: Path, environ: Mapping[str, str] | None = None) -> tuple[Config, Report]:
    """Return what can be made of the file, and the problems so far.

    A value that is wrong or missing has its default in the result, or an empty one. So the policy
    can be checked too, and everything be reported together.

    Raises:
        ConfigError: if there is no such file, or it is no TOML.
    """
    file = path / FILE_NAME if path.is_dir() else path
    report = Report(str(file))
    table = _parse(file, report)
    conversion = _Conversion(file.parent, report)
    config = conversion.struct(inspect.type_info(Config), table, ())
    environ = os.environ if environ is None else environ
    config = _override(config, environ, file.parent, report)
    _check_handlers(config.worker.handlers, file.parent, report)
    return msgspec.structs.replace(config, file=file.absolute()), report


def _parse(file: Path, report: Report) -> dict[str, Any]:
    """Read the file and learn its lines. Raises `ConfigError`."""
    text = ""
    try:
        text = file.read_bytes().decode("utf-8-sig")
        table = tomllib.loads(text)
        report.lines = lines_of(text)
    except FileNotFoundError:
        message = f"there is no such file; looked for {file.absolute()}"
        raise ConfigError([Problem(str(file), 0, message)]) from None
    except OSError as error:
        message = f"cannot be read: {error.strerror or error}"
        raise ConfigError([Problem(str(file), 0, message)]) from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError([Problem(str(file), line, "expected UTF-8 text")]) from None
    except tomllib.TOMLDecodeError as error:
        message, line = _syntax_problem(str(error), text)
        raise ConfigError([Problem(str(file), line, message)]) from None
    except (RecursionError, ValueError) as error:  # nested too deeply, or thousands of digits
        raise ConfigError([Problem(str(file), 0, f"cannot be read: {error}")]) from None
    return table


def _syntax_problem(message: str, text: str) -> tuple[str, int]:
    found = re.search(r" \(at line (\d+), column \d+\)", message)
    if found:
        return message.replace(found.group(), ""), int(found.group(1))
    return message.replace(" (at end of document)", " at the end"), text.rstrip().count("\n") + 1


_FOREIGN = re.compile(r"GATEWAY_(SERVICE_(HOST|PORT.*)|PORT(_\d+_(TCP|UDP|SCTP).*)?)")
"""What Kubernetes sets in every pod beside a service that is called `gateway`."""


def _override(config: Config, environ: Mapping[str, str], folder: Path, report: Report) -> Config:
    known = _variables()
    for name in sorted(environ):
        if not name.startswith(PREFIX) or _FOREIGN.fullmatch(name) or not environ[name]:
            continue
        if name not in known:
            message = "unknown variable" + did_you_mean(name, known)
            report.problems.append(Problem(name, 0, message))
            continue
        section, field = known[name]
        problems = Report(name)
        conversion = _Conversion(folder, problems)
        path = (section, field.name)
        if name.endswith(SUFFIX.upper()) and is_secret(field.type):
            if environ.get(name.removesuffix(SUFFIX.upper())):
                problems.add(path, f"expected this variable or {name[: -len(SUFFIX)]} but got both")
            value = conversion.from_file(field, environ[name], path, told_at=path)
        else:
            value = conversion.value(field.type, _from_text(field.type, environ[name]), path)
        report.problems += problems.problems
        if value is not _BAD:
            report.overridden(path, name)
            part = msgspec.structs.replace(getattr(config, section), **{field.name: value})
            config = msgspec.structs.replace(config, **{section: part})
    return config


def _variables() -> dict[str, tuple[str, inspect.Field]]:
    """Return all variables, each with the section and the field that it overrides."""
    sections = inspect.type_info(Config).fields  # type: ignore[attr-defined]
    return {
        f"{PREFIX}{section.name}_{field.name}{suffix}".upper(): (section.name, field)
        for section in sections
        if isinstance(section.type, inspect.StructType)
        for field in section.type.fields
        if not _has_tables(field.type)
        for suffix in (("", SUFFIX) if is_secret(field.type) else ("",))
    }


def _has_tables(node: object) -> bool:
    """Tell whether a value is made of tables, for which a text has no room."""
    match node:
        case inspect.UnionType(types=types):
            return any(map(_has_tables, types))
        case inspect.ListType(item_type=item):
            return _has_tables(item)
    return isinstance(node, inspect.StructType)


def _from_text(node: object, text: str) -> object:
    """Return the value that the file would hold, as far as the text can be read as one."""
    match node:
        case inspect.ListType():
            return [part.strip() for part in text.split(",")]
        case inspect.BoolType():
            return {"true": True, "1": True, "false": False, "0": False}.get(text.lower(), text)
        case inspect.IntType() if re.fullmatch(r"-?[0-9]{1,18}", text):
            return int(text)
    return text


def _check_handlers(names: Iterable[str], folder: Path, report: Report) -> None:
    """Modules are looked for beside the file, then where Python looks; nothing is imported."""
    for index, name in enumerate(names):
        if not all(part.isidentifier() for part in name.split(".")):
            continue  # the pattern has told already
        beside = folder / name.replace(".", "/")
        if beside.with_suffix(".py").is_file() or (beside / "__init__.py").is_file():
            continue
        if not _installed(name.partition(".")[0]):
            report.add(
                ("worker", "handlers", index),
                f"there is no module {name!r}; looked for {beside.with_suffix('.py')}",
            )


def _installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ValueError:  # __main__ has no spec
        return False


class _Bad:
    """What a conversion gives if there is no value to go on with."""


_BAD: Final = _Bad()
_COMPUTED = frozenset({"file"})
"""Fields that the loader fills in; the file has no such keys."""


class _Conversion:
    """Makes structures of tables. It goes on after a problem, so that all are found."""

    def __init__(self, folder: Path, report: Report) -> None:
        self._folder = folder
        self._report = report

    def struct(self, node: Any, table: Mapping[str, Any], path: KeyPath) -> Any:
        """Return the structure. An empty value stands for one that it must have and has not."""
        fields = {f.encode_name: f for f in node.fields if f.encode_name not in _COMPUTED}
        twins = {f"{name}{SUFFIX}" for name, field in fields.items() if is_secret(field.type)}
        known = fields.keys() | twins
        for name in table.keys() - known:
            self._report.add((*path, name), "unknown key" + did_you_mean(name, known))
        values: dict[str, Any] = {}
        for name, field in fields.items():
            twin = f"{name}{SUFFIX}"
            if twin in table and twin in twins - fields.keys():
                value = self._twin(field, table, path)
            else:
                value = self._field(field, table, path)
            if value is not _BAD:
                values[name] = value
            elif field.required:
                values[name] = () if isinstance(field.type, inspect.ListType) else ""
                self._report.replaced((*path, name))
        return node.cls(**values)

    def _field(self, field: inspect.Field, table: Mapping[str, Any], path: KeyPath) -> Any:
        name = field.encode_name
        if name in table:
            return self.value(field.type, table[name], (*path, name))
        if field.required:
            self._report.add(path, f"the key {name!r} is missing")
        elif isinstance(field.default, Path):
            return (self._folder / field.default).absolute()
        elif isinstance(field.type, inspect.StructType):  # its defaults may be paths
            return self.struct(field.type, {}, (*path, name))
        return _BAD

    def _twin(self, field: inspect.Field, table: Mapping[str, Any], path: KeyPath) -> Any:
        name, twin = field.encode_name, f"{field.encode_name}{SUFFIX}"
        if name in table:
            self._report.add((*path, twin), f"expected this or {name!r} but got both")
        return self.from_file(field, table[twin], (*path, name), told_at=(*path, twin))

    def from_file(
        self, field: inspect.Field, file: object, path: KeyPath, *, told_at: KeyPath
    ) -> Any:
        """Return the converted content of the file that was named at `told_at`, or `_BAD`."""
        if not isinstance(file, str) or not file:
            self._report.add(told_at, f"expected a path but got {_kind(file)}")
            return _BAD
        with self._report.guard(*told_at):
            raw, problems = secretfiles.read(self._folder / file, field.type, path)
            value = _Conversion(self._folder, problems).value(field.type, raw, path)
            self._report.problems += problems.problems
            self._report.overridden(path, str(self._folder / file))
            return value
        return _BAD

    def value(self, node: Any, raw: object, path: KeyPath) -> Any:
        """Return the converted value, or `_BAD`."""
        extra: Mapping[str, Any] = {}
        description = ""
        if isinstance(node, inspect.UnionType):  # X | None; TOML has no null
            node = next(t for t in node.types if not isinstance(t, inspect.NoneType))
        if isinstance(node, inspect.Metadata):
            extra = node.extra or {}
            description = (node.extra_json_schema or {}).get("description", "")
            node = node.type
        if extra.get("or_one") and isinstance(raw, str):
            raw = [raw]
        match node:
            case inspect.StructType() if isinstance(raw, dict):
                return self.struct(node, raw, path)
            case inspect.ListType() if isinstance(raw, list):
                return self._list(node, raw, path)
            case inspect.StrType() if isinstance(raw, str):
                return self._text(node, raw, path, description, secret=extra.get("secret", False))
            case inspect.IntType() if isinstance(raw, int) and not isinstance(raw, bool):
                return self._whole(node, raw, path)
            case inspect.FloatType() if isinstance(raw, int | float) and not isinstance(raw, bool):
                return self._number(node, raw, path)
            case inspect.BoolType() if isinstance(raw, bool):
                return raw
            case inspect.EnumType(cls=words) if isinstance(raw, str):
                return self._word(words, raw, path)
            case inspect.CustomType(cls=kind) if kind in (Seconds, Bytes, Frequency):
                return self._measure(kind, raw, path, positive=extra.get("positive", False))
            case inspect.CustomType() if isinstance(raw, str) and raw:
                return (self._folder / raw).absolute()
        self._report.add(path, f"expected {_expected(node)} but got {_kind(raw)}")
        return _BAD

    def _list(self, node: inspect.ListType, raw: list[object], path: KeyPath) -> Any:
        if len(raw) < (node.min_length or 0):
            self._report.add(path, "expected at least one item but got an empty list")
        items = [self.value(node.item_type, item, (*path, i)) for i, item in enumerate(raw)]
        kept = [index for index, item in enumerate(items) if item is not _BAD]
        if len(kept) < len(items):
            self._report.keep(path, kept)
        return tuple(items[index] for index in kept)

    def _text(
        self, node: inspect.StrType, raw: str, path: KeyPath, description: str, *, secret: bool
    ) -> str:
        if node.pattern and not re.search(node.pattern, raw):
            got = "something else" if secret else repr(raw[:80])
            self._report.add(path, f"expected {description} but got {got}")
        return Secret(raw) if secret else raw

    def _word(self, words: type[Enum], raw: str, path: KeyPath) -> Any:
        known = [str(word.value) for word in words]
        if raw in known:
            return words(raw)
        hint = did_you_mean(raw, known)
        self._report.add(path, f"expected {' or '.join(known)} but got {raw[:80]!r}{hint}")
        return _BAD

    def _whole(self, node: inspect.IntType, raw: int, path: KeyPath) -> int:
        if node.ge is not None and raw < node.ge:
            self._report.add(path, f"expected {node.ge} or more but got {raw}")
        elif node.le is not None and raw > node.le:
            self._report.add(path, f"expected {node.le} or less but got {raw}")
        return raw

    def _number(self, node: inspect.FloatType, raw: float, path: KeyPath) -> float:
        above, most = node.gt or 0, node.le or math.inf
        if not above < raw <= most:  # also refuses nan
            self._report.add(path, f"expected more than {above} and up to {most} but got {raw}")
        return float(raw)

    def _measure(
        self, kind: type[Seconds | Bytes | Frequency], raw: object, path: KeyPath, *, positive: bool
    ) -> Any:
        try:
            value = kind.parse(raw)
        except ValueError as error:
            self._report.add(path, f"{error} but got {_shown(raw)}")
            return _BAD
        if positive and not value:
            self._report.add(path, f"expected more than 0 but got {_shown(raw)}")
        return value


def _expected(node: object) -> str:
    match node:
        case inspect.StructType():
            return "a table"
        case inspect.ListType():
            return "a list"
        case inspect.IntType():
            return "a whole number"
        case inspect.FloatType():
            return "a number"
        case inspect.BoolType():
            return "true or false"
        case inspect.CustomType():
            return "a path"
    return "a text"


def _kind(raw: object) -> str:
    if isinstance(raw, dict):
        return "a table"
    return "a list" if isinstance(raw, list) else _shown(raw)


def _shown(raw: object) -> str:
    return str(raw).lower() if isinstance(raw, bool) else repr(raw)[:80]
