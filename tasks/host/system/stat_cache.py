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
"""Seconds after a change within which another one may leave the time as it is: a file system's
clock has coarse ticks."""
MISSING = (0, 0, 0)
CACHED = 1024
"""Results that one function remembers."""


def while_unchanged(read: Callable[[Path], T]) -> Callable[..., T]:
    """`read`, done anew only when its file or folder changed, or one of those named besides.

    A folder changes when something in it is added, removed or renamed.
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
