"""The free space of a volume, which the downloads of one run share."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

from tasks.host.failure import Failure
from tasks.host.progress import size

SPARE = 64 << 20
"""Bytes that a volume is left with, or a hundredth of it where that is less."""


class Room:
    """Promises of space; a file that got one finds it free."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._promised: dict[str, int] = {}
        self._lock = threading.Lock()

    def take(self, name: str, count: int) -> None:
        """Promise `count` bytes to a file. Raises Failure when they aren't there."""
        with self._lock:
            others = sum(self._promised.values()) - self._promised.get(name, 0)
            volume = shutil.disk_usage(self._folder)
            free = volume.free - others - min(SPARE, volume.total // 100)
            if count > free:
                raise Failure(
                    f"{name}: {size(count)} are to come, {self._folder} has "
                    f"{size(max(0, free))} left: make room, or set models.store to another volume"
                )
            self._promised[name] = count

    def use(self, name: str, count: int) -> None:
        """Say that bytes of a promise are written."""
        with self._lock:
            self._promised[name] = max(0, self._promised.get(name, 0) - count)

    def give_back(self, name: str) -> None:
        with self._lock:
            self._promised.pop(name, None)
