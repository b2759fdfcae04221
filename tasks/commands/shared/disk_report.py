"""The disk usage in `doit status`, from the last background measurement."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

from ...engine.run import Run
from ...host.generations import kept_generations
from ...host.storage import disk
from ...host.system.units import size


@dataclass(frozen=True)
class DiskReport:
    """Sizes are in bytes. `str()` is one line for people."""

    measured: float
    """Seconds since the epoch."""
    used: int
    """Used by `.machine`, without models and outputs."""
    free: int
    """Free on its volume."""
    good: list[str]
    """The kept good generations, the newest last."""
    oldest_frees: int | None
    """What removing the oldest of them would free; None if there is only one."""

    def __str__(self) -> str:
        number = f"{len(self.good)} good generation{'' if len(self.good) == 1 else 's'} kept"
        frees = f", the oldest takes {size(self.oldest_frees)}" if self.oldest_frees else ""
        return (
            f"disk: {size(self.used)} in .machine, {size(self.free)} free on its volume; "
            f"{number}{frees}"
        )


def read_report(run: Run) -> DiskReport | None:
    """The report; None before the first measurement."""
    layout = run.layout
    found = disk.last_measured(layout)
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
