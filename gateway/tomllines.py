"""The lines of a TOML text: where each key stands, which `tomllib` does not tell.

The text has been read by `tomllib` before, so that here nothing needs to be checked.
"""

import re
import tomllib
from collections.abc import Mapping

KeyPath = tuple[str | int, ...]
"""The way to a value: `("commands", 0, "routes", 1, "when")`."""

_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}|' + r"'''.*?'{3,5}|" + r'"(?:[^"\\\n]|\\.)*"|' + r"'[^'\n]*'",
    re.DOTALL,
)
_KEY_PART = r'(?:[A-Za-z0-9_-]+|"(?:[^"\\\n]|\\.)*"|' + r"'[^'\n]*')"
_KEY = re.compile(rf"{_KEY_PART}(?:[ \t]*\.[ \t]*{_KEY_PART})*")
_SPACE = re.compile(r"(?:\s|#[^\n]*)*")
_SCALAR = re.compile(r"[^,\]}#\n]+")


def lines_of(text: str) -> dict[KeyPath, int]:
    """Return the line, from 1, of every table, key and array item of a valid TOML text."""
    scanner = _Scanner(text)
    scanner.document()
    return scanner.lines


def nearest_line(lines: Mapping[KeyPath, int], path: KeyPath) -> int:
    """Return the line of `path`, or of the table that it is missing from, or 0."""
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 0)


class _Scanner:
    """Walks over the text once. `at` is the offset of what comes next."""

    def __init__(self, text: str) -> None:
        self.text = text.replace("\r\n", "\n")
        self.at = 0
        self.lines: dict[KeyPath, int] = {}
        self._counted = (0, 1)  # an offset and its line
        self._tables: dict[KeyPath, int] = {}  # arrays of tables, and how many there are so far

    def document(self) -> None:
        table: KeyPath = ()
        while self._skip_space() < len(self.text):
            if self._take("[["):
                table = self._header(array=True)
            elif self._take("["):
                table = self._header(array=False)
            else:
                self._pair(table)

    def _header(self, *, array: bool) -> KeyPath:
        self._skip_space()
        line, key = self._line(), self._key()
        path: KeyPath = ()
        for part in key[:-1]:
            path = self._newest((*path, part))
            self.lines.setdefault(path, line)
        path = (*path, key[-1])
        if array:
            self.lines.setdefault(path, line)
            self._tables[path] = self._tables.get(path, 0) + 1
        path = self._newest(path)
        self.lines[path] = line
        self._skip_space()
        self.at += 2 if array else 1
        return path

    def _newest(self, path: KeyPath) -> KeyPath:
        """Return the path of the table that `path` means: of an array, its newest."""
        return (*path, self._tables[path] - 1) if path in self._tables else path

    def _pair(self, table: KeyPath) -> None:
        line = self._line()
        path = table
        for part in self._key():
            path = (*path, part)
            self.lines.setdefault(path, line)
        self._skip_space()
        self._take("=")
        self._skip_space()
        self._value(path)

    def _value(self, path: KeyPath) -> None:
        if self._take("["):
            index = 0
            while self._skip_space() < len(self.text) and not self._take("]"):
                self.lines[*path, index] = self._line()
                self._value((*path, index))
                index += 1
                self._skip_space()
                self._take(",")
        elif self._take("{"):
            while self._skip_space() < len(self.text) and not self._take("}"):
                self._pair(path)
                self._skip_space()
                self._take(",")
        else:
            self._match(_STRING) or self._match(_SCALAR)

    def _key(self) -> list[str]:
        """Read a key, dotted or not, as `tomllib` itself understands its quotes and escapes."""
        table: object = tomllib.loads(f"{self._match(_KEY)} = 0")
        parts = []
        while isinstance(table, dict):
            ((part, table),) = table.items()
            parts.append(part)
        return parts

    def _skip_space(self) -> int:
        self._match(_SPACE)
        return self.at

    def _take(self, literal: str) -> bool:
        if not self.text.startswith(literal, self.at):
            return False
        self.at += len(literal)
        return True

    def _match(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self.text, self.at)
        if not found:
            return ""
        self.at = found.end()
        return found.group()

    def _line(self) -> int:
        offset, line = self._counted
        line += self.text.count("\n", offset, self.at)
        self._counted = (self.at, line)
        return line
