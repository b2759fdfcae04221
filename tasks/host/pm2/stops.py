"""What we stopped, and why: no log and no exit status shows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from ...spec.layout import Layout
from ..system import files
from ..system.program_files import PROGRAM
from ..system.stat_cache import while_unchanged
from . import apps

Why = Literal["down", "container", "replaced", "removed", "cordoned", "held", "watcher", "server"]
SAYS: Mapping[Why, str] = {
    "down": f"stopped by {PROGRAM} down",
    "container": "stopped together with its container",
    "replaced": f"stopped by {PROGRAM}, which started it anew",
    "removed": f"stopped by {PROGRAM}, since machine.yaml no longer asks for it",
    "cordoned": "stopped, since its GPU is cordoned",
    "held": "stopped by the watcher until its instance is healthy",
    "watcher": "ended by the watcher",
    "server": "ended by the health server",
}


@dataclass(frozen=True)
class Stop:
    """One stop of an app."""

    process: str
    """The process that ended (`apps.identity`): pids are used again, soonest in containers."""
    why: Why
    detail: str = ""

    def __str__(self) -> str:
        return f"{SAYS[self.why]}: {self.detail}" if self.detail else SAYS[self.why]


@dataclass(frozen=True)
class Stops:
    """The record: apps that aren't to run now, and the last stop of each app."""

    names: frozenset[str] = frozenset()
    last: Mapping[str, Stop] = field(default_factory=dict)


def note(layout: Layout, pids: Mapping[str, int], why: Why, detail: str = "") -> None:
    """Note that these apps are stopped, and not to run until they are started: before they end.

    `pids`: name → pid, or 0 if it doesn't run.
    """
    known = read(layout.stopped)
    running = {name: apps.identity(pid) for name, pid in pids.items() if pid}
    stops = {name: Stop(process, why, detail) for name, process in running.items() if process}
    _write(layout, known, Stops(known.names.union(pids), {**known.last, **stops}))


def note_restart(layout: Layout, name: str, pid: int, why: Why, detail: str) -> None:
    """Note that this process is ended, and its app starts anew."""
    known = read(layout.stopped)
    stop = Stop(apps.identity(pid) or "", why, detail)
    _write(layout, known, Stops(known.names, {**known.last, name: stop}))


def started(layout: Layout, names: set[str]) -> None:
    """Note that these apps are started."""
    known = read(layout.stopped)
    _write(layout, known, Stops(known.names.difference(names), known.last))


def read(file: Path) -> Stops:
    """The record; empty without one. Never raises."""
    found = files.read_receipt(file, names=list)
    names = frozenset(name for name in found.get("names", []) if isinstance(name, str))
    try:
        last = {name: Stop(**entry) for name, entry in found["last"].items()}
        return Stops(names, {name: stop for name, stop in last.items() if stop.why in SAYS})
    except (AttributeError, LookupError, TypeError):
        return Stops(names)


known = while_unchanged(read)
"""`read`, cached for callers that need it every second."""


def _write(layout: Layout, known: Stops, now: Stops) -> None:
    # Don't recreate a removed workspace.
    if layout.state.is_dir() and now != known:
        last = {name: asdict(stop) for name, stop in sorted(now.last.items())}
        files.write_receipt(layout.stopped, {"names": sorted(now.names), "last": last})
