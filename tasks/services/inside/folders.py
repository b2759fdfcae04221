"""Cheap checks of folders and checkouts."""

from __future__ import annotations

import contextlib
import os


class Names:
    """The names in a folder, read again when its mtime changed."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._time = -1
        self._names: frozenset[str] = frozenset()

    def look(self) -> frozenset[str]:
        with contextlib.suppress(OSError):
            time = os.stat(self.folder).st_mtime_ns  # noqa: PTH116
            if time != self._time:
                self._names = frozenset(os.listdir(self.folder)) - {"__pycache__"}  # noqa: PTH208
                self._time = time
        return self._names


def head(checkout: str) -> str | None:
    """The commit of a checkout, read from its files; see `tasks/host/repositories/git.py`."""
    try:
        text = read_text(f"{checkout}/.git/HEAD").strip()
        if not text.startswith("ref: "):
            return text
        ref = text.removeprefix("ref: ")
        with contextlib.suppress(FileNotFoundError):
            return read_text(f"{checkout}/.git/{ref}").strip()
        for line in read_text(f"{checkout}/.git/packed-refs").splitlines():
            if line.endswith(f" {ref}"):
                return line.split()[0]
    except (OSError, ValueError):
        pass
    return None


def read_text(file: str) -> str:
    with open(file, encoding="utf-8") as opened:  # noqa: PTH123
        return opened.read()


def stamp(path: str) -> list[int] | None:
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]
