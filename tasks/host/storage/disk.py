"""Disk usage of a machine's folders, measured by a background process."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ...spec.layout import Layout
from ..system import files
from . import digest_folders

BLOCK = 512
"""Bytes of a block in stat, on every file system."""


@dataclass(frozen=True)
class Disk:
    """Bytes; a file with several links counts once."""

    at: float = 0.0
    """Seconds since the epoch; 0: never measured."""
    all: int = 0
    """Of `.machine` with everything in it."""
    generations: dict[str, int] = field(default_factory=dict)
    """Of each generation, without its environment."""
    environments: dict[str, int] = field(default_factory=dict)
    """Of each environment, only files that have no link elsewhere."""
    stuck: dict[str, str] = field(default_factory=dict)
    """Name → why it can't be deleted."""

    def freed_by(self, layout: Layout, generation: str) -> int:
        """The bytes that the removal of a generation would free."""
        environment = environment_of(layout.generations / generation)
        others = (
            p for p in digest_folders.list_folders(layout.generations) if p.name != generation
        )
        shared = environment in {environment_of(each) for each in others}
        alone = 0 if shared else self.environments.get(environment, 0)
        return self.generations.get(generation, 0) + alone


def last_measured(layout: Layout) -> Disk:
    found = files.read_receipt(
        layout.disk, at=float, all=int, generations=dict, environments=dict, stuck=dict
    )
    try:
        return Disk(**found)
    except TypeError:
        return Disk()


def environment_of(generation: Path) -> str:
    """The name of the environment that a generation links to."""
    return Path(files.link_target(generation / "environment") or "none").name


def _names(layout: Layout) -> tuple[list[str], list[str]]:
    """The names of existing generations and environments."""
    both = layout.generations, layout.environments
    generations, environments = (
        [p.name for p in digest_folders.list_folders(each)] for each in both
    )
    return sorted(generations), sorted(environments)


def is_current(layout: Layout) -> bool:
    """Whether the folders are still those that were measured."""
    disk = last_measured(layout)
    return _names(layout) == (sorted(disk.generations), sorted(disk.environments))


def measure(layout: Layout, stuck: dict[str, str]) -> None:
    """Measure everything, a second per 100,000 files, and record it. Raises OSError."""
    counted: dict[tuple[int, int], int] = {}
    own: dict[Path, dict[str, int]] = {layout.generations: {}, layout.environments: {}}
    for parent, found in own.items():
        for folder in digest_folders.list_folders(parent):
            found[folder.name] = _own(folder, counted)
    for status in _walk(layout.machine, skip=set(own)):
        counted[status.st_dev, status.st_ino] = status.st_blocks * BLOCK
    disk = Disk(
        at=time.time(),
        all=sum(counted.values()),
        generations=own[layout.generations],
        environments=own[layout.environments],
        stuck=stuck,
    )
    # The workspace may have been removed meanwhile: don't create it again.
    if layout.receipts.is_dir():
        files.write_receipt(layout.disk, asdict(disk))


def used(path: Path, without: Collection[Path] = ()) -> int:
    """The bytes of a file or tree, each file once, without some folders in it."""
    found = {
        (status.st_dev, status.st_ino): status.st_blocks * BLOCK
        for status in _walk(path, skip=set(without))
    }
    return sum(found.values())


def _own(folder: Path, counted: dict[tuple[int, int], int]) -> int:
    """Bytes of the files that have no link outside `folder`; all are added to `counted`."""
    links: Counter[tuple[int, int]] = Counter()
    total = 0
    for status in _walk(folder):
        key = status.st_dev, status.st_ino
        counted[key] = status.st_blocks * BLOCK
        links[key] += 1
        if status.st_nlink == links[key] or stat.S_ISDIR(status.st_mode):
            total += counted[key]
    return total


def _walk(top: Path, skip: Collection[Path] = ()) -> Iterator[os.stat_result]:
    """The stat of a folder and everything below it, without following links."""
    waiting = [top]
    while waiting:
        folder = waiting.pop()
        with contextlib.suppress(OSError):
            yield folder.lstat()
            with os.scandir(folder) as inside:
                for entry in inside:
                    if not entry.is_dir(follow_symlinks=False):
                        yield entry.stat(follow_symlinks=False)
                    elif (path := folder / entry.name) not in skip:
                        waiting.append(path)
