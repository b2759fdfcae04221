"""An instance's databases, one for each commit of ComfyUI that it ran.

ComfyUI brings the tables of its database to its own revision as it starts, and an older one can't
read them any more. So the first start of a commit begins with a copy of what was used last; that
one stays for going back, and the copy for going forward again.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

from ..system import files
from ..system.failure import Failure

LAST = "last"
"""Link beside them, to the one that was used last."""
BEFORE = Path("..") / "comfyui.db"
"""Where the only one was before each commit had its own."""
PATIENCE = 20.0
"""Seconds that another process may keep the one that is copied locked."""


def prepare(file: Path) -> None:
    """Have `file` be there, and be the one that was used last. Raises Failure if it can't be."""
    last = file.parent / LAST
    source = last if last.is_symlink() else file.parent / BEFORE
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.exists() and source.exists():
            _copy(source.resolve(), file)
        files.point(last, file.name)
    except (OSError, sqlite3.Error) as error:
        raise Failure(
            f"{file} can't be made of the database that was used last, {source.resolve()}: "
            f"{error}: make room or correct its rights, then doit restart"
        ) from None


def _copy(source: Path, file: Path) -> None:
    """All or nothing; what is no database is left where it is, and ComfyUI makes a new one."""
    deadline = time.monotonic() + PATIENCE

    def wait(*_: int) -> None:
        if time.monotonic() > deadline:
            raise OSError(f"another process has kept it locked for {PATIENCE:.0f} s")

    try:
        # Not read-only: what a killed process left in a journal is taken up first.
        with (
            files.staging(file) as part,
            closing(sqlite3.connect(f"{source.as_uri()}?mode=rw", uri=True)) as old,
            closing(sqlite3.connect(part)) as new,
        ):
            old.backup(new, progress=wait)
    except sqlite3.Error as error:
        # Its subclasses tell of a full disk, a lock, missing rights.
        if type(error) is not sqlite3.DatabaseError:
            raise
        print(f"{source} is no database any more ({error}): starting with a new one", flush=True)
