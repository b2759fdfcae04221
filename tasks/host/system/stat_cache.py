"""What was read from disk and hasn't changed since, for callers that ask every few seconds."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

FRESH = 2.0
"""Seconds after a change in which another change may leave the mtime as it is: file systems have
coarse clocks."""
MISSING = (0, 0, 0)
CACHED = 1024
"""Results that are cached per function."""


def while_unchanged(read: Callable[[Path], T]) -> Callable[..., T]:
    """Cache `read` until its file or folder changes, or one of those in `besides`.

    A folder changes when an entry is added, removed or renamed.
    """
    cached: dict[Path, tuple[object, T]] = {}

    @functools.wraps(read)
    def look(path: Path, *besides: Path | str) -> T:
        now = [stamp(each) for each in (path, *besides)]
        known = cached.get(path)
        if known and known[0] == now:
            return known[1]
        value = read(path)
        if len(cached) >= CACHED:
            cached.clear()
        if time.time_ns() - max(each[2] for each in now) > FRESH * 1e9:
            cached[path] = (now, value)
        return value

    return look


def stamp(path: Path | str) -> tuple[int, int, int]:
    """Inode, size and time of change (ns); MISSING when there is no file."""
    try:
        status = os.stat(path)  # noqa: PTH116  for thousands of folders
    except OSError:
        return MISSING
    return status.st_ino, status.st_size, status.st_mtime_ns
