"""Large folders: copying with shared files that are never written to, and finding written files."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..system import files, process

BATCH = 2000
"""Files that one `cp` copies."""


@dataclass(frozen=True)
class TreeScan:
    """The files below a folder, as relative paths, without bytecode."""

    every: frozenset[str]
    written: tuple[str, ...]
    """Files that were written, replaced or created since the given moment."""


def copy(source: Path, target: Path, share: Callable[[str], bool]) -> None:
    """Copy a tree with its links, modes and times. A file for which `share` is true becomes a hard
    link where possible. Several `cp` copy the rest in half the time of Python threads.

    Raises OSError for a folder or link that can't be created, CommandFailed when a copy fails.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    copied = [
        f"{below}{name}"
        for below, names in _make_folders(str(source), str(target), "")
        for name in names
        if not (share(name) and _linked(f"{source}/{below}{name}", f"{target}/{below}{name}"))
    ]
    copy = ["cp", "--archive", "--reflink=auto", "--parents", "--target-directory", target, "--"]
    with tempfile.TemporaryDirectory() as folder:
        names = Path(folder, "names")
        names.write_bytes(b"\0".join(map(os.fsencode, copied)))
        several = ["xargs", "--null", "--no-run-if-empty", "--max-procs", os.cpu_count() or 1,
                   "--max-args", BATCH, "--arg-file", names]  # fmt: skip
        process.run([*several, *copy], env=process.allowed_environment(os.environ), cwd=source)


def _make_folders(source: str, target: str, below: str) -> Iterator[tuple[str, list[str]]]:
    """Create all folders and symbolic links; yields each folder with the names of its files."""
    os.mkdir(f"{target}/{below}")  # noqa: PTH102
    with os.scandir(f"{source}/{below}") as entries:
        found = list(entries)
    for entry in found:
        if entry.is_symlink():
            os.symlink(os.readlink(entry.path), f"{target}/{below}{entry.name}")  # noqa: PTH115, PTH211
        elif entry.is_dir():
            yield from _make_folders(source, target, f"{below}{entry.name}/")
    yield below, [each.name for each in found if each.is_file(follow_symlinks=False)]


def _linked(source: str, target: str) -> bool:
    try:
        os.link(source, target)
    except OSError:
        return False
    return True


def now(beside: Path) -> int:
    """The time in ns on the coarse clock of the file system of `beside`."""
    probe = beside.with_name(f".{beside.name}.{os.getpid()}.moment")
    probe.touch()
    try:
        return probe.stat().st_mtime_ns
    finally:
        probe.unlink()


def scan(top: Path, since: int, shared: Callable[[str], bool]) -> TreeScan:
    """The files below `top`, and those that were written since a moment (ns).

    The ctime also shows writes that restore the mtime, but changes with the number of hard links,
    so for `shared` files the mtime decides.
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
                unshared = stat.S_ISREG(status.st_mode) and not shared(entry.name)
                if since <= (status.st_ctime_ns if unshared else status.st_mtime_ns):
                    written.append(place)
    return TreeScan(frozenset(every), tuple(sorted(written)))
