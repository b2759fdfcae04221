"""The SQLite file of --database-url: its revision, its backup and its lock.

A real one has tables and migrations; here its revision is a number, SQLite's `user_version`.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import sqlite3
import sys
import time
from pathlib import Path

from simulation.flags import ASSETS, SINCE_2026, args

REVISIONS = {"2025": 1, "2026": 2, "later": 3}
PATIENCE = 5.0
"""Seconds for which `later` waits for another process to let go of the database."""

_MEMORY = ("sqlite:///:memory:", "sqlite://")


class StartupError(Exception):
    """The database can't be used; the text is the kind that ASSETS_STARTUP_FAILED names."""


def open_database() -> None:
    """Make or upgrade the file and take its lock.

    What goes wrong is only logged, but with the assets system it ends the process with code 1.
    """
    if args.as_of == "later" and not ASSETS:
        return
    try:
        _open()
    except (ValueError, sqlite3.Error, OSError, StartupError) as problem:
        if args.as_of == "later":
            kind = problem if isinstance(problem, StartupError) else "other"
            logging.error("ASSETS_STARTUP_FAILED: %s", kind)
        else:
            logging.error("Failed to initialize database. %s", problem)
        if ASSETS:
            sys.exit(1)


def _open() -> None:
    url: str = args.database_url
    if not url.startswith("sqlite://"):
        raise ValueError(f"Unsupported database URL '{url}'.")
    if url in _MEMORY:
        return
    file = url.removeprefix("sqlite:///")
    _upgrade(file)
    if SINCE_2026:
        _take_lock(file)


def _upgrade(file: str) -> None:
    """Bring an older file to this revision, after a copy of it; a newer one is refused."""
    wanted = REVISIONS[args.as_of]
    existed = Path(file).exists()
    connection = sqlite3.connect(file)
    try:
        (found,) = connection.execute("PRAGMA user_version").fetchone()
        if found > wanted:
            raise StartupError(
                "newer_revision" if args.as_of == "later" else f"Can't locate revision {found}"
            )
        if found < wanted:
            if existed:
                shutil.copy(file, f"{file}.bkp")
            connection.execute(f"PRAGMA user_version = {wanted}")
            connection.commit()
            logging.info("Database upgraded from %s to %s", found or None, wanted)
    finally:
        connection.close()


def _take_lock(file: str) -> None:
    """Lock the file beside it until this process ends."""
    lock = os.open(f"{file}.lock", os.O_RDWR | os.O_CREAT, 0o644)
    deadline = time.monotonic() + (PATIENCE if args.as_of == "later" else 0)
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() < deadline:
                time.sleep(0.05)
                continue
            raise StartupError(
                "in_use"
                if args.as_of == "later"
                else f"Could not acquire lock on database '{file}'. Another ComfyUI process may"
                " already be using it. Use --database-url to specify a separate database file."
            ) from None
