"""The queue of jobs in one line, from what the health server tells of it."""

from __future__ import annotations

import time
from dataclasses import dataclass

from ...host.system.units import duration


@dataclass(frozen=True)
class QueueReport:
    """How many jobs wait, run and are dead."""

    waiting: int
    running: int
    dead: int
    oldest: float | None
    """When the oldest that waits was submitted, in seconds since the epoch; None: none waits."""
    paused: bool | None
    """Whether no job is started; None: not known."""

    def __str__(self) -> str:
        age = ""
        if self.oldest is not None:
            age = f" (the oldest {duration(max(0.0, time.time() - self.oldest))})"
        paused = "paused, " if self.paused else ""
        return f"jobs: {paused}{self.waiting} wait{age}, {self.running} run, {self.dead} dead"


def read(told: object) -> QueueReport | None:
    """What the health server tells; None: it doesn't."""
    if not isinstance(told, dict) or told.get("ok") is not True:
        return None
    waiting, running, dead = (told.get(name) for name in ("waiting", "running", "dead"))
    if not (isinstance(waiting, int) and isinstance(running, int) and isinstance(dead, int)):
        return None
    oldest = told.get("oldest")
    at = float(oldest) if isinstance(oldest, int | float) else None
    return QueueReport(waiting, running, dead, at, told.get("paused"))
