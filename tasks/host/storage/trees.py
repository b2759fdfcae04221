"""Folders of many files: copied so that they share what nobody writes into, and looked through
for what was written into since."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..system import files
from ..system.thread_pool import each

COPIERS = 4
"""Folders that are copied at once: the kernel does most of the work."""
FICLONE = 0x40049409
"""ioctl(2): give a file the bytes of another without copying them; ext4 hasn't got it."""


@dataclass(frozen=True)
class Look:
    """The files below a folder, paths relative to it; bytecode is left out."""

    every: frozenset[str]
    written: tuple[str, ...]
    """Those that were written, replaced or made since the moment that was asked about."""


def copy(source: Path, target: Path, share: Callable[[str], bool]) -> None:
    """Copy a tree, links and files' times kept; a file that is to be shared becomes a hard link.

    Where a hard link can't be made the file is copied. Raises OSError (disk full, …).
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    found = list(_make_folders(str(source), str(target)))
    copier = _Copier()
    work = partial(_copy_files, copier, share)
    for _, result in each(work, found, COPIERS):
        if isinstance(result, BaseException):
            raise result


def _make_folders(source: str, target: str) -> Iterator[tuple[str, str, list[str]]]:
    """Make every folder and symbolic link; each folder with its copy and its files' names."""
    os.mkdir(target)  # noqa: PTH102
    names = []
    with os.scandir(source) as entries:
        found = list(entries)
    for entry in found:
        there = f"{target}/{entry.name}"
        if entry.is_symlink():
            os.symlink(os.readlink(entry.path), there)  # noqa: PTH115, PTH211
        elif entry.is_dir():
            yield from _make_folders(entry.path, there)
        elif entry.is_file():
            names.append(entry.name)
    yield source, target, names


def _copy_files(
    copier: _Copier, share: Callable[[str], bool], work: tuple[str, str, list[str]]
) -> None:
    source, target, names = work
    for name in names:
        one, other = f"{source}/{name}", f"{target}/{name}"
        if not (share(name) and _linked(one, other)):
            copier.copy(one, other)


def _linked(source: str, target: str) -> bool:
    try:
        os.link(source, target)
    except OSError:
        return False
    return True


class _Copier:
    """Copies files, and tries reflinks until one can't be made."""

    def __init__(self) -> None:
        self._clones = True

    def copy(self, source: str, target: str) -> None:
        if not (self._clones and self._clone(source, target)):
            shutil.copyfile(source, target)
        shutil.copystat(source, target)

    def _clone(self, source: str, target: str) -> bool:
        with open(source, "rb") as there, open(target, "wb") as here:  # noqa: PTH123
            try:
                fcntl.ioctl(here, FICLONE, there.fileno())
            except OSError:
                self._clones = False
        return self._clones


def now(beside: Path) -> int:
    """This moment on the clock of the file system of `beside`, in ns: it ticks coarsely."""
    probe = beside.with_name(f".{beside.name}.{os.getpid()}.moment")
    probe.touch()
    try:
        return probe.stat().st_mtime_ns
    finally:
        probe.unlink()


def look(top: Path, since: int, shared: Callable[[str], bool]) -> Look:
    """What is below `top`, and what of it was written since a moment (ns).

    A file's change time shows a write that puts the old time back, and moves with the number of
    hard links: of those that are `shared` the time of the last write has to do.
    """
    every: list[str] = []
    written: list[str] = []
    todo = [""]
    while todo:
        below = todo.pop()
        with os.scandir(top / below) as entries:
            for entry in entries:
                place = below + entry.name
                if entry.is_dir(follow_symlinks=False):
                    if entry.name != files.BYTECODE:
                        todo.append(f"{place}/")
                    continue
                if entry.name.endswith((".pyc", ".pyo")):
                    continue
                every.append(place)
                status = entry.stat(follow_symlinks=False)
                own = stat.S_ISREG(status.st_mode) and not shared(entry.name)
                if since <= (status.st_ctime_ns if own else status.st_mtime_ns):
                    written.append(place)
    return Look(frozenset(every), tuple(sorted(written)))
