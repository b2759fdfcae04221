"""Deletes discarded files in the background, then measures disk usage.

`python -m comfy_machine.services.sweeper WORKSPACE DESCRIPTOR`: the descriptor holds the lock that
allows one sweeper per workspace. It runs at the lowest priority and ends by itself. If it is
killed, the next run starts another.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

import psutil

from ..host.storage import disk, garbage
from ..host.system import files, locks
from ..spec.layout import Layout


def main(workspace: Path, descriptor: int) -> None:
    layout = Layout(workspace)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    os.nice(19)
    with contextlib.suppress(psutil.Error, OSError):
        psutil.Process().ionice(psutil.IOPRIO_CLASS_IDLE)
    while True:
        stuck = _sweep(layout)
        disk.measure(layout, stuck)
        locks.unlock(descriptor)
        # A run that found the lock taken until now did not start a sweeper.
        if all(path.name in stuck for path in garbage.entries(layout)) and disk.is_current(layout):
            return
        if not locks.lock(descriptor):
            return


def _sweep(layout: Layout) -> dict[str, str]:
    """Delete everything; return what can't be deleted, with the reasons."""
    stuck: dict[str, str] = {}
    while paths := [path for path in garbage.entries(layout) if path.name not in stuck]:
        for path in paths:
            try:
                files.remove(path)
            except OSError as error:
                stuck[path.name] = f"{error.filename}: {error.strerror}"
    return stuck


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
