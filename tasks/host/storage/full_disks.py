"""Full disks that a machine writes to."""

from __future__ import annotations

import os
from pathlib import Path

from ...spec.layout import Layout
from ..system import private_folder

NEEDED = 1 << 20
"""Bytes that records of a run, logs and PM2 need."""


def full(layout: Layout) -> list[str]:
    """One line for each full disk that the machine writes to, with the folder on it."""
    folders = (
        layout.machine,
        layout.state,
        layout.outputs(0).parent,
        private_folder.folder(layout.workspace),
    )
    found: dict[int, str] = {}
    for folder in folders:
        there = _existing(folder)
        try:
            disk, device = os.statvfs(there), there.stat().st_dev
        except OSError:
            continue
        if disk.f_bavail * disk.f_frsize < NEEDED:
            found.setdefault(device, f"no space is left on the disk of {folder}")
        elif disk.f_files and not disk.f_favail:
            found.setdefault(device, f"no inodes are left on the disk of {folder}")
    return list(found.values())


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next((path for path in (folder, *folder.parents) if path.exists()), folder)
