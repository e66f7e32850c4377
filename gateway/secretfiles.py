"""Secrets in files of their own, as Docker and Kubernetes put them there.

Each secret setting has a twin, `<name>_file`. A file holds one secret, or one a line where there
may be several; line breaks at its end are none of it.
"""

from pathlib import Path
from typing import Any

from msgspec import inspect

from gateway.report import Report
from gateway.tomllines import KeyPath

SUFFIX = "_file"
MAX_SIZE = 1 << 20
"""Bytes. What is larger is no secret, but the wrong file."""


def is_secret(node: Any) -> bool:
    """Tell whether a setting of this type is a secret, or a list of them."""
    if isinstance(node, inspect.UnionType):
        return any(map(is_secret, node.types))
    if isinstance(node, inspect.Metadata):
        return bool((node.extra or {}).get("secret")) or is_secret(node.type)
    return isinstance(node, inspect.ListType) and is_secret(node.item_type)


def several(node: Any) -> bool:
    """Tell whether a secret setting is a list."""
    if isinstance(node, inspect.Metadata):
        return several(node.type)
    return isinstance(node, inspect.ListType)


def read(file: Path, node: Any, path: KeyPath) -> tuple[str | list[str], Report]:
    """Return what a file holds for the setting at `path`, and a report that knows its lines.

    Raises:
        ValueError: it cannot be read, or holds nothing.
    """
    report = Report(str(file))
    lines = _text(file).splitlines()
    filled = [number for number, line in enumerate(lines, 1) if line.strip()]
    if not filled:
        raise ValueError(f"{file} is empty")
    if several(node):
        report.lines = {(*path, index): number for index, number in enumerate(filled)}
        return [lines[number - 1].strip() for number in filled], report
    if len(filled) > 1:
        raise ValueError(f"expected one line in {file} but got {len(filled)}")
    report.lines = {path: filled[0]}
    return lines[filled[0] - 1].strip(), report


def _text(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            content = opened.read(MAX_SIZE + 1)
        if len(content) > MAX_SIZE:
            raise ValueError(f"{file} is larger than {MAX_SIZE} bytes")
        return content.decode("utf-8-sig")
    except OSError as error:
        raise ValueError(f"cannot read {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"expected UTF-8 text in {file}") from None
