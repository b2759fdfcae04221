"""The watcher's heartbeat: the time of a file tells others that it isn't stopped or hanging."""

from __future__ import annotations

import time
from pathlib import Path

from . import private_folder

SILENT = 30.0
"""Seconds without a beat after which the watcher counts as hanging."""


def beat(workspace: Path) -> None:
    """Raises OSError without the private folder."""
    _file(workspace).touch()


def is_silent(workspace: Path, started: float) -> bool:
    """Whether a watcher that was started then (epoch seconds) has given no sign for too long."""
    try:
        last = _file(workspace).stat().st_mtime
    except OSError:
        last = 0.0
    return time.time() - max(last, started) > SILENT


def fault(workspace: Path, watcher: tuple[int, float] | None) -> str | None:
    """What is wrong with the watcher of this pid and start, in words; None: nothing."""
    if watcher is None:
        return "the watcher doesn't run"
    pid, started = watcher
    if is_silent(workspace, started):
        return f"the watcher (pid {pid}) hangs: no sign of it for {SILENT:g} s"
    return None


def _file(workspace: Path) -> Path:
    return private_folder.folder(workspace) / "watcher.beat"
