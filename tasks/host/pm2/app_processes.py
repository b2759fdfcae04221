"""The processes of a workspace's apps, found in /proc and then cached by pid.

All of /proc is read again only when a requested app is missing: at once if PM2's folder of pid
files changed, because PM2 started or lost an app; otherwise at intervals, to find orphans.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..system import private_folder
from . import apps

if TYPE_CHECKING:
    import psutil


APPEARS = 2.0
"""Seconds after which a started process has an environment; during exec it has none."""


@dataclass(frozen=True)
class Found:
    """An app and its process."""

    process: psutil.Process
    app: apps.App


class Census:
    """Finds the processes of a workspace's apps. Thread-safe."""

    def __init__(self, workspace: Path, every: float) -> None:
        self._workspace = workspace
        self._pids = private_folder.folder(workspace) / "pids"
        self._every = every
        self._found: dict[str, Found] = {}
        self._next = self._until = 0.0
        self._changed = -1
        self._lock = threading.Lock()

    def find(self, name: str) -> Found | None:
        """The process of a running app; None if it doesn't run."""
        with self._lock:
            cached = self._running(name)
            if cached is None and self._due():
                self._read()
                cached = self._running(name)
            return cached

    def _running(self, name: str) -> Found | None:
        cached = self._found.get(name)
        return cached if cached is not None and apps.runs(cached.process) else None

    def _due(self) -> bool:
        now, change = time.monotonic(), self.change()
        if change != self._changed:
            self._changed, self._until = change, now + APPEARS
        return now < self._until or now >= self._next

    def change(self) -> int:
        """A number that changes when PM2 starts or loses an app."""
        try:
            return self._pids.stat().st_mtime_ns
        except OSError:
            return 0

    def _read(self) -> None:
        import psutil

        self._next = time.monotonic() + self._every
        self._found = {}
        for app in apps.running(self._workspace, None):
            try:
                process = psutil.Process(app.pid)
            except psutil.Error:
                continue
            if process.create_time() == app.started:
                self._found[app.name] = Found(process, app)
