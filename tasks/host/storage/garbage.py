"""What is to be removed: out of the way at once, and deleted by a process that nobody waits for.

One such process at a time works for a workspace. It holds a kernel lock from before it begins
(the lock is handed to it), so that nobody ever sees work without a worker unless it was killed.
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

PROGRAM = "tasks.services.sweeper"
PATIENCE = 10.0
"""Seconds in which it ends when it is asked to."""
LOOK_EVERY = 0.02
"""Seconds between two looks whether it has."""


def discard(layout: Layout, path: Path) -> None:
    """Take a folder or file out of the way, with the receipts beside it. Raises OSError."""
    digest_folders.forget(path)
    try:
        layout.garbage.mkdir(exist_ok=True)
        path.rename(layout.garbage / f"{path.name}.{time.time_ns()}")
    except OSError:
        # On another volume, or in a layer of an image, which is no place to move things from.
        files.remove(path)


def entries(layout: Layout) -> list[Path]:
    """What was moved out of the way and is not yet deleted."""
    try:
        return sorted(layout.garbage.iterdir())
    except OSError:
        return []


def left(layout: Layout) -> list[Path]:
    """What is to be deleted while nobody does it: whoever did was killed."""
    stuck = disk.read(layout).stuck
    found = [path for path in entries(layout) if path.name not in stuck]
    return found if found and not at_work(layout) else []


def start(layout: Layout) -> None:
    """Have a process delete what was discarded, then measure what is left.

    One that is at work already looks again before it ends.
    """
    descriptor = locks.claim(_file(layout))
    if descriptor is None:
        return
    os.ftruncate(descriptor, 0)
    log = layout.log("sweeper")
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", PROGRAM, str(layout.workspace), str(descriptor)]
    try:
        with log.open("wb") as sink:
            # No child of this run, whose end would be its own.
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
    if not _file(layout).exists():
        return False
    descriptor = locks.claim(_file(layout))
    if descriptor is None:
        return True
    os.close(descriptor)
    return False


def stop(layout: Layout) -> None:
    """End the process, if there is one; a later run goes on with what it leaves."""
    deadline = time.monotonic() + PATIENCE
    while at_work(layout) and time.monotonic() < deadline:
        # It writes its pid there as it begins.
        with contextlib.suppress(OSError, ValueError):
            os.kill(int(_file(layout).read_text()), signal.SIGTERM)
        time.sleep(LOOK_EVERY)


def _file(layout: Layout) -> Path:
    return layout.state / "garbage.lock"
