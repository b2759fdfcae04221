"""What `doit status` says of the disk: as it was last measured, for nobody waits for that."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

from ...engine.run import Run
from ...host.generations import kept_generations
from ...host.storage import disk
from ...host.system.units import size


@dataclass(frozen=True)
class DiskReport:
    """Bytes. `str()` is one line for people."""

    measured: float
    """Seconds since the epoch."""
    used: int
    """By `.machine`, models and outputs not counted."""
    free: int
    """On its volume."""
    good: list[str]
    """The good generations that are kept, the newest last."""
    oldest_frees: int | None
    """What the removal of the oldest of them would free; None where there is only one."""

    def __str__(self) -> str:
        number = f"{len(self.good)} good generation{'' if len(self.good) == 1 else 's'} kept"
        frees = f", the oldest takes {size(self.oldest_frees)}" if self.oldest_frees else ""
        return (
            f"disk: {size(self.used)} in .machine, {size(self.free)} left on its volume; "
            f"{number}{frees}"
        )


def of(run: Run) -> DiskReport | None:
    """None before it was measured for the first time."""
    layout = run.layout
    found = disk.read(layout)
    if not found.at:
        return None
    good = kept_generations.good_and_there(layout)
    return DiskReport(
        measured=found.at,
        used=found.all,
        free=shutil.disk_usage(layout.machine).free,
        good=good,
        oldest_frees=found.freed_by(layout, good[0]) if len(good) > 1 else None,
    )
