"""GPUs that are out of service: no instance runs on them until a person takes the cordon away.

A person cordons a GPU, or the watcher one that vanished or reports errors of its hardware.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from ...spec.layout import Layout
from . import files, locks, private_folder

LATEST = 1 << 34
"""A time after this, in seconds since the epoch, isn't one that we wrote."""


@dataclass(frozen=True)
class Cordon:
    """Why a GPU is out of service."""

    reason: str
    """One line; empty: a person gave none."""
    by_hand: bool
    at: float
    """Seconds since the epoch."""

    def __str__(self) -> str:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.at))
        how = "by hand" if self.by_hand else "by the watcher"
        return f"since {when}, {how}{': ' if self.reason else ''}{self.reason}"


def read(layout: Layout) -> dict[int, Cordon]:
    """Instance number → why its GPU is out of service; what can't be read doesn't count."""
    found = {}
    entries = files.read_receipt(layout.cordoned, gpus=dict).get("gpus", {})
    for gpu, entry in entries.items():
        try:
            one = Cordon(str(entry["reason"]), bool(entry["by_hand"]), float(entry["at"]))
            if 0 <= one.at < LATEST:
                found[int(gpu)] = one
        except (LookupError, TypeError, ValueError):
            continue
    return found


def add(layout: Layout, gpu: int, reason: str, *, by_hand: bool) -> bool:
    """Cordon a GPU; return whether it wasn't yet."""
    with _changing(layout) as cordoned:
        if gpu in cordoned:
            return False
        cordoned[gpu] = Cordon(reason, by_hand, time.time())
        return True


def remove(layout: Layout, gpu: int) -> bool:
    """Take a cordon away; return whether there was one."""
    with _changing(layout) as cordoned:
        return cordoned.pop(gpu, None) is not None


@contextmanager
def _changing(layout: Layout) -> Iterator[dict[int, Cordon]]:
    """Raises Failure without the private folder, which has the lock."""
    with locks.exclusive(private_folder.make(layout.workspace) / "cordons.lock"):
        cordoned = read(layout)
        before = dict(cordoned)
        yield cordoned
        if cordoned != before:
            if layout.cordoned.is_dir():
                files.remove(layout.cordoned)
            content = {str(gpu): asdict(each) for gpu, each in sorted(cordoned.items())}
            files.write_receipt(layout.cordoned, {"gpus": content})
