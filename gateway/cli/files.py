"""Changing files that others read meanwhile."""

import fcntl
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


def replaced(path: Path, change: Callable[[str], str]) -> None:
    """Replace a file by what `change` makes of its text, or make it; nobody ever reads a half.

    Who does the same at the same time waits. A new file is for its owner alone; an old one keeps
    its mode and, where that is allowed, its owner. Raises `OSError`, and what `change` raises.
    """
    path = path.resolve()  # what a link leads to is replaced, not the link
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        before = path.stat() if path.exists() else None
        text = change(path.read_text(encoding="utf-8") if before else "")
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            if before:
                Path(name).chmod(before.st_mode & 0o7777)
                with suppress(PermissionError):
                    os.chown(name, before.st_uid, before.st_gid)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    finally:
        os.close(folder)
