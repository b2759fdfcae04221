"""Who runs for a workspace: found once in /proc, then known by pid.

All of /proc is read again only when one that was asked for is missing: as soon as PM2 started or
lost an app, which changes its folder of pid files, and else every so many seconds, for orphans.
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
"""Seconds that a started process may take to show its environment; it has none while it execs."""


@dataclass(frozen=True)
class Found:
    """The process of an app, and what its environment says of it."""

    process: psutil.Process
    app: apps.App


class Census:
    """The apps of a workspace; may be asked from any thread."""

    def __init__(self, workspace: Path, every: float) -> None:
        self._workspace = workspace
        self._pids = private_folder.folder(workspace) / "pids"
        self._every = every
        self._found: dict[str, Found] = {}
        self._next = self._until = 0.0
        self._changed = -1
        self._lock = threading.Lock()

    def find(self, name: str) -> Found | None:
        """The process of an app that runs, None when none does."""
        with self._lock:
            known = self._alive(name)
            if known is None and self._due():
                self._read()
                known = self._alive(name)
            return known

    def _alive(self, name: str) -> Found | None:
        known = self._found.get(name)
        return known if known is not None and apps.runs(known.process) else None

    def _due(self) -> bool:
        now, change = time.monotonic(), self.change()
        if change != self._changed:
            self._changed, self._until = change, now + APPEARS
        return now < self._until or now >= self._next

    def change(self) -> int:
        """A number that is another one after PM2 started or lost an app."""
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
