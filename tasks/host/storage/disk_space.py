"""The free space of a volume, which the downloads of one run share."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

from ..system.failure import Failure
from ..system.units import size

SPARE = 64 << 20
"""Bytes that a volume is left with, or a hundredth of it where that is less."""


def free(folder: Path) -> int:
    """Bytes that may be written to a volume, which is left with some."""
    volume = shutil.disk_usage(folder)
    return max(0, volume.free - min(SPARE, volume.total // 100))


class Room:
    """Promises of space; a file that got one finds it free."""

    def __init__(self, folder: Path, make: Callable[[int], object] | None = None) -> None:
        """`make` is asked, where there is too little, to have so many bytes free."""
        self._folder = folder
        self._make = make
        self._promised: dict[str, int] = {}
        self._lock = threading.Lock()

    def take(self, name: str, count: int) -> None:
        """Promise `count` bytes to a file. Raises Failure when they aren't there."""
        with self._lock:
            others = sum(self._promised.values()) - self._promised.get(name, 0)
            if self._make and others + count > free(self._folder):
                self._make(others + count)
            left = free(self._folder) - others
            if count > left:
                raise Failure(
                    f"{name}: {size(count)} are to come, {self._folder} has "
                    f"{size(max(0, left))} left: make room, or set models.store to another volume"
                )
            self._promised[name] = count

    def use(self, name: str, count: int) -> None:
        """Say that bytes of a promise are written."""
        with self._lock:
            self._promised[name] = max(0, self._promised.get(name, 0) - count)

    def give_back(self, name: str) -> None:
        with self._lock:
            self._promised.pop(name, None)
