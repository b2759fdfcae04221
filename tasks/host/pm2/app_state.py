"""The state of one app, an instance or a worker, as the system and PM2 have it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..system.stat_cache import while_unchanged
from . import apps, log_evidence
from .log_evidence import Blame

LOOPS = 2
"""Restarts of a process that never lived 30 s (PM2's `min_uptime`), from which on it loops."""

_blame = while_unchanged(log_evidence.of)
"""It counts all the lines of a log, and is asked every second for one that has ended."""


@dataclass(frozen=True)
class AppState:
    """One app at one moment. `memory` is in bytes, its children's included, `uptime` in seconds;
    None: not known."""

    app: apps.App | None
    memory: int | None = None
    uptime: float | None = None
    restarts: int | None = None
    is_known: bool = False
    """PM2 has an app of that name."""
    loops: bool = False
    """PM2 gave it up, or starts it again and again."""
    was_stopped: bool = False
    """It was stopped on purpose, and not started since."""
    blame: Blame | None = None
    """The line of its log that says why it ended; read only when it doesn't run, or loops."""


def of(
    app: apps.App | None,
    memory: int | None,
    entry: Mapping[str, Any] | None,
    log: Path,
    was_stopped: bool = False,
) -> AppState:
    """The state of an app; `entry` is PM2's `pm2_env` of it. Reads its log where it ended."""
    uptime = round(max(0.0, time.time() - app.started), 1) if app else None
    loops = _loops(entry or {}, uptime or 0.0)
    return AppState(
        app,
        memory,
        uptime,
        number(entry, "restart_time"),
        entry is not None,
        loops,
        was_stopped,
        _blame(log) if loops or app is None else None,
    )


def _loops(entry: Mapping[str, Any], uptime: float) -> bool:
    return entry.get("status") == "errored" or (
        (number(entry, "unstable_restarts") or 0) >= LOOPS
        # The count stays when it lives at last.
        and uptime * 1000 < (number(entry, "min_uptime") or 0)
    )


def number(entry: Mapping[str, Any] | None, key: str) -> int | None:
    value = (entry or {}).get(key)
    return int(value) if isinstance(value, (int, float)) else None
