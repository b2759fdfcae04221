"""The state of one app, an instance or a worker, from the system and PM2."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...spec.layout import Layout
from . import apps, endings, liveness, stops
from .endings import Ending

LOOPS = 2
"""Restarts within 30 s of the start (PM2's `min_uptime`) from which an app is in a crash loop."""


@dataclass(frozen=True)
class AppState:
    """One app at one moment. `memory` is in bytes with child processes, `uptime` in seconds; None:
    not known."""

    app: apps.App | None
    memory: int | None = None
    uptime: float | None = None
    restarts: int | None = None
    is_known: bool = False
    """Whether PM2 has an app of that name."""
    loops: bool = False
    """Whether it is in a crash loop, or PM2 gave up on it."""
    was_stopped: bool = False
    """Whether it was stopped on purpose and not started since."""
    ending: Ending | None = None
    """How its last process ended; only if it doesn't run or is in a crash loop."""
    probe_fault: str = ""
    """Why it fails its liveness probe; empty: it doesn't, or has none."""


def of(
    app: apps.App | None,
    memory: int | None,
    entry: Mapping[str, Any] | None,
    layout: Layout,
    name: str,
) -> AppState:
    """The state of an app; `entry` is its `pm2_env` from PM2. Reads its log if it ended."""
    uptime = round(max(0.0, time.time() - app.started), 1) if app else None
    loops = _loops(entry or {}, uptime or 0.0)
    return AppState(
        app,
        memory,
        uptime,
        number(entry, "restart_time"),
        entry is not None,
        loops,
        name in stops.known(layout.stopped).names,
        endings.last(layout, name, app.pid if app else None) if loops or app is None else None,
        liveness.fault(layout, app) if app else "",
    )


def _loops(entry: Mapping[str, Any], uptime: float) -> bool:
    return entry.get("status") == "errored" or (
        (number(entry, "unstable_restarts") or 0) >= LOOPS
        # PM2 keeps the count when the app runs at last.
        and uptime * 1000 < (number(entry, "min_uptime") or 0)
    )


def number(entry: Mapping[str, Any] | None, key: str) -> int | None:
    """A number in an entry; None if it isn't one."""
    value = (entry or {}).get(key)
    return int(value) if isinstance(value, (int, float)) else None
