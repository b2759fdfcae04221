"""Folders of many files: copied so that both share the files that are never written to, and
searched for what was written to since."""

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
class Look:
    """The files below a folder, paths relative to it; bytecode is left out."""

    every: frozenset[str]
    written: tuple[str, ...]
    """Those that were written, replaced or made since the moment that was asked about."""


def copy(source: Path, target: Path, share: Callable[[str], bool]) -> None:
    """Copy a tree, links, modes and times of files kept; a file that `share` names becomes a hard
    link, or a copy where none can be made. The rest is copied by several `cp` at once, which take
    half the time of Python's threads.

    Raises OSError for a folder or link that can't be made, CommandFailed when a copy failed.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    own = [
        f"{below}{name}"
        for below, names in _make_folders(str(source), str(target), "")
        for name in names
        if not (share(name) and _linked(f"{source}/{below}{name}", f"{target}/{below}{name}"))
    ]
    copy = ["cp", "--archive", "--reflink=auto", "--parents", "--target-directory", target, "--"]
    with tempfile.TemporaryDirectory() as folder:
        names = Path(folder, "names")
        names.write_bytes(b"\0".join(map(os.fsencode, own)))
        several = ["xargs", "--null", "--no-run-if-empty", "--max-procs", os.cpu_count() or 1,
                   "--max-args", BATCH, "--arg-file", names]  # fmt: skip
        process.run([*several, *copy], env=process.allowed_environment(os.environ), cwd=source)


def _make_folders(source: str, target: str, below: str) -> Iterator[tuple[str, list[str]]]:
    """Make every folder and symbolic link; each folder below `source`, and its files' names."""
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
