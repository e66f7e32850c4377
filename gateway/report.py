"""The report of what is wrong with a configuration: each problem with its file and line."""

import difflib
from collections.abc import Iterable, Mapping

from gateway.errors import ConfigError, Problem
from gateway.tomllines import KeyPath, nearest_line


class Report:
    """The problems of one configuration, each with its file and line."""

    def __init__(self, file: str = "configuration") -> None:
        self.problems: list[Problem] = []
        self.lines: Mapping[KeyPath, int] = {}
        self._file = file
        self._kept: dict[KeyPath, list[int]] = {}
        self._replaced: set[KeyPath] = set()
        self._variables: dict[KeyPath, str] = {}

    def add(self, path: KeyPath, message: str) -> None:
        """Record what is wrong with the value at `path` of the configuration as it was read."""
        prefixes = (path[:length] for length in range(len(path), 0, -1))
        variable = next((v for each in prefixes if (v := self._variables.get(each))), None)
        if variable:
            self.problems.append(Problem(variable, 0, f"{dotted(path)}: {message}"))
            return
        path = self._original(path)
        if path not in self._replaced:
            line = nearest_line(self.lines, path)
            self.problems.append(Problem(self._file, line, f"{dotted(path)}: {message}"))

    def guard(self, *path: str | int) -> "Guard":
        """Turn a `ValueError` of a `with` block into a problem of the value at `path`."""
        return Guard(self, path)

    def keep(self, path: KeyPath, indices: list[int]) -> None:
        """Remember which items of an array are left: later paths count without the others."""
        self._kept[path] = indices

    def overridden(self, path: KeyPath, variable: str) -> None:
        """Remember that the value at `path` comes from an environment variable, or a file."""
        self._variables[path] = variable

    def replaced(self, path: KeyPath) -> None:
        """Remember that an empty value stands at `path`: what is wrong with it has been told."""
        self._replaced.add(path)

    def settle(self) -> None:
        """Raise `ConfigError` with all problems, in the order of their lines, if there are any."""
        if self.problems:
            raise ConfigError(sorted(set(self.problems)))

    def _original(self, path: KeyPath) -> KeyPath:
        original: KeyPath = ()
        for part in path:
            kept = self._kept.get(original)
            original += (kept[part] if kept and isinstance(part, int) else part,)
        return original


class Guard:
    """A `with` block that ends at a `ValueError`, which is reported."""

    def __init__(self, report: Report, path: KeyPath) -> None:
        self._report = report
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        if not isinstance(error, ValueError):
            return False
        self._report.add(self._path, str(error))
        return True


def dotted(path: KeyPath) -> str:
    """Return a path as people write it: `commands[0].routes[1].when`."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return "".join(parts).removeprefix(".")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return what to add to a sentence about an unknown name, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
