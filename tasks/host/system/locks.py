"""Kernel locks: one holder at a time, gone with the process that held them."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")
_LOCAL_TYPES = ("fuse", "9p", "virtiofs", "vboxsf")
"""Types of file system whose locks other machines may not see."""
_LOCAL_OPTIONS = frozenset({"nolock", "local_lock=flock", "local_lock=all", "localflock"})
"""Mount options of NFS and Lustre with the same effect."""


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Wait for the lock file `path` and hold it; create its folder if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = open_file(path)
    try:
        lock(descriptor, wait=True)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def attempt(path: Path) -> Iterator[bool]:
    """Hold the lock file `path` unless another process does; yields whether we hold it."""
    descriptor = open_file(path)
    try:
        yield lock(descriptor)
    finally:
        os.close(descriptor)


def claim(path: Path) -> int | None:
    """A descriptor that holds the lock file `path` until it is closed; None: another process holds
    it. On a volume without locks this keeps no process out. Raises OSError."""
    descriptor = open_file(path)
    try:
        free = lock(descriptor)
    except OSError:
        free = True
    if free:
        return descriptor
    os.close(descriptor)
    return None


def open_file(path: Path, mode: int = 0o600) -> int:
    """Open a lock file, creating it if it is missing. Raises OSError."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode)


def lock(descriptor: int, *, wait: bool = False) -> bool:
    """Lock an open file; False: another process holds it. Raises OSError on a volume without
    locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def unlock(descriptor: int) -> None:
    """Release the lock of an open file, and keep the file open."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)


def reach_other_machines(folder: Path) -> bool:
    """Whether a lock on a file in a folder keeps other machines out too, as far as is known."""
    return _reach(MOUNTS, folder.stat().st_dev)


@lru_cache(maxsize=64)
def _reach(mounts: Path, device: int) -> bool:
    number = f"{os.major(device)}:{os.minor(device)}"
    try:
        lines = mounts.read_text().splitlines()
    except OSError:
        return True
    for line in lines:
        mount, _, kind = line.partition(" - ")
        if mount.split()[2:3] == [number]:
            options = set(kind.split()[-1].split(","))
            return not kind.startswith(_LOCAL_TYPES) and not _LOCAL_OPTIONS & options
    return True
