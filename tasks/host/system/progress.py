"""How far downloads and hashes are, counted by many threads and read by one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .units import duration, size

OnProgress = Callable[[float | None, str], object]
"""Called from any thread with the progress in percent (None: unknown) and the current work."""
WINDOW = 10.0
"""Seconds over which a rate is measured."""


def ignore_progress(percent: float | None, detail: str) -> None:
    """An OnProgress that does nothing."""


@dataclass
class Item:
    """One file: its bytes in total (None: unknown) and done."""

    name: str
    total: int | None = None
    done: int = 0
    state: str = "waiting"
    """waiting, running, done or failed."""
    moved: int = 0
    """Bytes transferred in this run; only these count for the rate."""


@dataclass
class Progress:
    """All files of a run. Every method may be called from any thread."""

    what: str
    items: dict[str, Item] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._begin = time.monotonic()
        self._marks: list[tuple[float, int]] = [(self._begin, 0)]

    def add(self, name: str, total: int | None = None) -> None:
        with self._lock:
            self.items[name] = Item(name, total)

    def begin(self, name: str, total: int | None, done: int = 0) -> None:
        with self._lock:
            item = self.items.setdefault(name, Item(name))
            item.total, item.done, item.state = total, done, "running"

    def advance(self, name: str, count: int) -> None:
        with self._lock:
            item = self.items[name]
            item.done += count
            item.moved += count

    def end(self, name: str, *, failed: bool = False) -> None:
        with self._lock:
            item = self.items[name]
            item.state = "failed" if failed else "done"
            if not failed and item.total is not None:
                item.done = item.total

    def snapshot(self) -> dict[str, Any]:
        """Everything as plain data: bytes, bytes per second, seconds left (None: unknown)."""
        with self._lock:
            items = [Item(**vars(item)) for item in self.items.values()]
            now, moved = time.monotonic(), sum(item.moved for item in items)
            self._marks = [each for each in self._marks if each[0] >= now - WINDOW] or [
                self._marks[-1]
            ]
            then, before = self._marks[0]
            self._marks.append((now, moved))
        rate = (moved - before) / (now - then) if now > then else 0.0
        live = [item for item in items if item.state != "failed"]
        total = sum(item.total or 0 for item in live)
        done = sum(item.done for item in live)
        known = all(item.total is not None for item in live)
        return {
            "what": self.what,
            "files": len(items),
            "files_done": sum(item.state == "done" for item in items),
            "files_failed": sum(item.state == "failed" for item in items),
            "bytes": total if known else None,
            "bytes_done": done,
            "rate": round(rate),
            "seconds": round(now - self._begin, 1),
            "seconds_left": round((total - done) / rate) if rate > 0 and known else None,
            "running": [
                {"name": item.name, "bytes": item.total, "bytes_done": item.done}
                for item in items
                if item.state == "running"
            ],
        }


def line(shot: dict[str, Any]) -> str:
    """A snapshot as one line for logs."""
    left = f", {duration(shot['seconds_left'])} left" if shot["seconds_left"] is not None else ""
    failed = f", {shot['files_failed']} failed" if shot["files_failed"] else ""
    return f"{shot['what']}: {share(shot)[1]}{left}{failed}"


def share(shot: dict[str, Any]) -> tuple[float | None, str]:
    """A snapshot in percent (None: unknown) and in words."""
    whole = shot["bytes"]
    all_of = f" of {size(whole)}" if whole is not None else ""
    words = (
        f"{shot['files_done']} of {shot['files']} files, "
        f"{size(shot['bytes_done'])}{all_of}, {size(shot['rate'])}/s"
    )
    return 100 * shot["bytes_done"] / whole if whole else None, words
