"""Patterns of paths, and whether two patterns can mean the same name."""

import re
from functools import cache

PARAMETER = re.compile(r"\{([a-z_][a-z0-9_]*)\}")
_SEGMENT = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9_.~-]+")


class PathPattern:
    """A command's path: segments that are literal, or a `{parameter}` that matches any segment."""

    __slots__ = ("_regex", "parameters", "text")

    def __init__(self, text: str) -> None:
        """Compile `text`. Raises `ValueError`."""
        if not text.startswith("/"):
            raise ValueError(f"expected a path that begins with / but got {text[:80]!r}")
        segments = text[1:].split("/")
        self.text = text
        self.parameters = [p[1:-1] for p in segments if PARAMETER.fullmatch(p)]
        """Their names, in the order of the path."""
        for segment in segments:
            if not PARAMETER.fullmatch(segment) and not _SEGMENT.fullmatch(segment):
                raise ValueError(
                    "expected segments of letters, digits and _.~- or of one {parameter} in lower "
                    f"case but got {segment[:80]!r}"
                )
        if len(set(self.parameters)) < len(self.parameters):
            raise ValueError(f"expected each parameter once in {text[:80]!r}")
        self._regex = re.compile(
            "".join(
                f"/(?P<{s[1:-1]}>[^/]+)" if PARAMETER.fullmatch(s) else "/" + re.escape(s)
                for s in segments
            )
        )

    def match(self, path: str) -> dict[str, str] | None:
        """Return the parameters of a percent-decoded path, or None if it is another one."""
        found = self._regex.fullmatch(path)
        return found.groupdict() if found else None


def overlap(one: str, other: str, separator: str) -> bool:
    """Return whether some name matches both patterns.

    A parameter matches one character or more, but no separator; so the patterns are compared
    between separators.
    """
    ours, theirs = one.split(separator), other.split(separator)
    return len(ours) == len(theirs) and all(map(_segments_overlap, ours, theirs))


_ANY = "any character"
_MORE = "any number of characters"


def _segments_overlap(one: str, other: str) -> bool:
    ours, theirs = _tokens(one), _tokens(other)

    @cache
    def meet(i: int, j: int) -> bool:
        a = ours[i] if i < len(ours) else None
        b = theirs[j] if j < len(theirs) else None
        if a is _MORE:
            return meet(i + 1, j) or (b is not None and meet(i, j + 1))
        if b is _MORE:
            return meet(i, j + 1) or (a is not None and meet(i + 1, j))
        if a is None or b is None:
            return a is b
        return (a == b or _ANY in (a, b)) and meet(i + 1, j + 1)

    return meet(0, 0)


def _tokens(segment: str) -> list[str]:
    tokens: list[str] = []
    for index, part in enumerate(PARAMETER.split(segment)):
        tokens += (_ANY, _MORE) if index % 2 else part
    return tokens
