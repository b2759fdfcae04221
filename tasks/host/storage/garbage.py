"""Removal in the background: files are moved aside at once, and a process deletes them later.

A workspace has one such process at a time. It inherits a kernel lock, so if files are waiting and
nothing holds the lock, the process was killed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from ...spec.layout import Layout
from ..system import files, locks, process
from . import digest_folders, disk

PROGRAM = "comfy_machine.services.sweeper"
STOP_TIMEOUT = 10.0
"""Seconds to wait for the process to end."""
CHECK_EVERY = 0.02
"""Seconds between two checks whether it has ended."""


def discard(layout: Layout, path: Path) -> None:
    """Move a folder or file aside, and remove its receipts. Raises OSError."""
    digest_folders.forget(path)
    try:
        layout.garbage.mkdir(exist_ok=True)
        path.rename(layout.garbage / f"{path.name}.{time.time_ns()}")
    except OSError:
        # It is on another volume, or in an image layer, from which rename doesn't work.
        files.remove(path)


def entries(layout: Layout) -> list[Path]:
    """What was moved aside and isn't deleted yet."""
    try:
        return sorted(layout.garbage.iterdir())
    except OSError:
        return []


def left(layout: Layout) -> list[Path]:
    """What waits for deletion although no process is at work: that was killed."""
    stuck = disk.last_measured(layout).stuck
    found = [path for path in entries(layout) if path.name not in stuck]
    return found if found and not at_work(layout) else []


def start(layout: Layout) -> None:
    """Start a process that deletes what was discarded, then measures the disk usage.

    If one runs already, it checks again before it ends.
    """
    descriptor = locks.claim(_file(layout))
    if descriptor is None:
        return
    os.ftruncate(descriptor, 0)
    log = layout.log("sweeper")
    files.empty_log(log)
    command = [sys.executable, "-m", PROGRAM, str(layout.workspace), str(descriptor)]
    try:
        with files.open_log(log) as sink:
            # Not a child of this run, which would end it.
            subprocess.run(
                ["sh", "-c", '"$@" &', "sh", *command],
                check=True,
                env=process.allowed_environment(os.environ),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                start_new_session=True,
                pass_fds=[descriptor],
            )
    finally:
        os.close(descriptor)


def at_work(layout: Layout) -> bool:
    # For reading: a plan asks too, which writes nothing.
    try:
        descriptor = os.open(_file(layout), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return not locks.lock(descriptor)
    except OSError:
        # A volume without locks.
        return False
    finally:
        os.close(descriptor)


def stop(layout: Layout) -> None:
    """End the process, if it runs; a later run deletes the rest."""
    deadline = time.monotonic() + STOP_TIMEOUT
    while at_work(layout) and time.monotonic() < deadline:
        # The process writes its pid there when it begins.
        with contextlib.suppress(OSError, ValueError):
            os.kill(int(_file(layout).read_text()), signal.SIGTERM)
        time.sleep(CHECK_EVERY)


def _file(layout: Layout) -> Path:
    return layout.state / "garbage.lock"
