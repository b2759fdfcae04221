"""Room for further results: when the disk runs low, those of the jobs that ended first go."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable

from ...spec.layout import Layout
from . import job_files

SHARE, MOST = 0.05, 5 << 30
"""Results leave this share of the disk free, but no more than so many bytes."""
RECENT = 3600.0
"""Seconds for which a job's files stay, however full the disk is."""


def lacks(layout: Layout) -> bool:
    """Whether results should give room. Raises OSError."""
    folder = job_files.folder_of(layout, "")
    if not folder.is_dir():
        return False
    disk = shutil.disk_usage(folder)
    return disk.free < min(SHARE * disk.total, MOST)


def oldest_first(layout: Layout, ended: Callable[[str], float | None]) -> list[str]:
    """The jobs whose files may go. `ended` tells when a job ended, now for one that hasn't; None:
    it isn't known any more. Raises OSError."""
    found = []
    for folder in job_files.folder_of(layout, "").iterdir():
        at = ended(folder.name)
        at = folder.lstat().st_mtime if at is None else at
        if at < time.time() - RECENT:
            found.append((at, folder.name))
    return [job for _, job in sorted(found)]
