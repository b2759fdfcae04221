"""The free space of a volume, shared by the downloads of one run."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

from ..system.failure import Failure
from ..system.units import size

SPARE = 64 << 20
"""Bytes that stay free on a volume, or 1 % of it if that is less."""


def free(folder: Path) -> int:
    """Bytes that may be written to the volume of a folder, without SPARE."""
    volume = shutil.disk_usage(folder)
    return max(0, volume.free - min(SPARE, volume.total // 100))


class DiskSpace:
    """Reservations on one volume, so that each file finds the space that it reserved."""

    def __init__(self, folder: Path, free_up: Callable[[int], object] | None = None) -> None:
        """If space is short, `free_up` is called with the bytes that must be free."""
        self._folder = folder
        self._free_up = free_up
        self._reserved: dict[str, int] = {}
        self._lock = threading.Lock()

    def reserve(self, name: str, count: int) -> None:
        """Reserve `count` bytes for a file, in place of its last reservation. Raises Failure."""
        with self._lock:
            others = sum(self._reserved.values()) - self._reserved.get(name, 0)
            if self._free_up and others + count > free(self._folder):
                self._free_up(others + count)
            left = free(self._folder) - others
            if count > left:
                raise Failure(
                    f"{name}: {size(count)} needed, {size(max(0, left))} free on {self._folder}: "
                    "free some space, or set models.store to another volume"
                )
            self._reserved[name] = count

    def use(self, name: str, count: int) -> None:
        """Note that `count` reserved bytes are written."""
        with self._lock:
            self._reserved[name] = max(0, self._reserved.get(name, 0) - count)

    def release(self, name: str) -> None:
        with self._lock:
            self._reserved.pop(name, None)
