"""Kernel locks: one holder at a time, gone with the process that held them."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Wait for the lock file `path` and hold it; its folder is made when missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = open_file(path)
    try:
        lock(descriptor, wait=True)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def attempt(path: Path) -> Iterator[bool]:
    """Hold the lock file `path`, unless another process holds it: whether it is held is given."""
    descriptor = open_file(path)
    try:
        yield lock(descriptor)
    finally:
        os.close(descriptor)


def claim(path: Path) -> int | None:
    """A descriptor that holds the lock file `path` until it is closed; None if another process
    holds it. On a volume that has no locks it keeps no process out. Raises OSError."""
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
    """Open a lock file, and make it when it is missing. Raises OSError."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode)


def lock(descriptor: int, *, wait: bool = False) -> bool:
    """Lock an open file; False if another process holds it. Raises OSError where the volume has
    no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def unlock(descriptor: int) -> None:
    """Give the lock of an open file back, and keep the file open."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)
