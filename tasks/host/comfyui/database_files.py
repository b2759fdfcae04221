"""An instance's databases, one for each commit of ComfyUI that it ran.

ComfyUI migrates its database when it starts, and an older ComfyUI can't read it afterwards. So each
commit has its own file: the first start of a commit copies the database used last, which stays for
a return to the previous commit.
"""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from ..system import files
from ..system.failure import Failure
from ..system.program_files import PROGRAM

LAST = "last"
"""Name of the link, in the same folder, to the database used last."""
SHARED = Path("..") / "comfyui.db"
"""The database of versions in which all commits shared one."""
LOCK_TIMEOUT = 20.0
"""Seconds to wait for a process that has the copied database locked."""


def prepare(file: Path) -> None:
    """Create `file` if it is missing, and mark it as the database used last. Raises Failure."""
    last = file.parent / LAST
    if os.path.lexists(last) and not last.is_symlink():
        raise Failure(f"{last} must be a link to the database used last: {PROGRAM} repair")
    source = last if last.is_symlink() else file.parent / SHARED
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.exists() and source.exists():
            _copy(files.real(source), file)
        files.point(last, file.name)
    except (OSError, sqlite3.Error) as error:
        raise Failure(
            f"{file} can't be created from the database used last, {files.real(source)}: {error}: "
            f"free disk space or correct the permissions, then run {PROGRAM} restart"
        ) from None


def _copy(source: Path, file: Path) -> None:
    """Copy all or nothing. A damaged database stays, and ComfyUI creates a new one."""
    deadline = time.monotonic() + LOCK_TIMEOUT

    def wait(*_: int) -> None:
        if time.monotonic() > deadline:
            raise OSError(f"another process has kept it locked for {LOCK_TIMEOUT:.0f} s")

    try:
        # Not read-only, so that SQLite first replays the journal of a killed process.
        with (
            files.staging(file) as part,
            closing(sqlite3.connect(f"{source.as_uri()}?mode=rw", uri=True)) as old,
            closing(sqlite3.connect(part)) as new,
        ):
            old.backup(new, progress=wait)
    except sqlite3.Error as error:
        # The subclasses mean a full disk, a lock, missing permissions.
        if type(error) is not sqlite3.DatabaseError:
            raise
        print(f"{source} is damaged ({error}): starting with a new one", flush=True)
