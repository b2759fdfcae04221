"""Own files and folders below `.machine` that have lost their mode or their type.

A folder lies where a file of ours belongs, a file where a folder does, a link points at itself:
nothing can be written there. What lies there may be somebody's, so it is moved to `left/`.
"""

from __future__ import annotations

import errno
import fnmatch
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from ...spec.layout import Layout
from ..system.program_files import PROGRAM

ADVICE = f"{PROGRAM} repair moves it away"
REPAIRED = "repaired"
"""The folder below `left/` for what was in the way."""
#: Folders of which the files are our own, as patterns of paths below `.machine`.
OWN_FILES = (
    "receipts/*.json", "receipts/nodes/*.json", "progress/*", "logs/*", "sources/*.json",
    "generations/*.json*", "environments/*.json", "state/*.json", "state/*.key", "state/*.lock",
    "state/*.yaml", "state/apps/*.json", "state/starts/*.json", "state/held/*", "state/env/*.json",
    "state/env/nodes/*.env", "state/jobs/token", "state/jobs/nats.conf", "state/good/*/*.json",
    "state/instances/*/*.json", "state/instances/*/databases/*.db",
)  # fmt: skip
OWN_FOLDERS = (
    "sources", "environments", "generations", "receipts", "receipts/nodes", "logs", "progress",
    "scratch", "supervisor", "supervisor/*", "garbage", "left", "state", "state/apps",
    "state/starts", "state/held", "state/env", "state/env/nodes", "state/jobs", "state/good",
    "state/good/*", "state/instances", "state/instances/*", "state/instances/*/user",
    "state/instances/*/temp", "state/instances/*/databases", "state/instances/*/reports",
)  # fmt: skip
OWN_LINKS = ("state/current", "state/models", "state/instances/*/databases/last")


def restore(layout: Layout) -> Iterator[str]:
    """Give this user access to his files again, and move aside what is in their place.

    Yields a line for each. Raises OSError, as for another user's files.
    """
    yield from _open(layout.machine)
    for pattern in OWN_FOLDERS:
        for path in _matching(layout.machine, pattern):
            if is_no_folder(path):
                yield _move_aside(layout, path, "is no folder")
    for pattern in OWN_FILES:
        for path in _matching(layout.machine, pattern):
            if path.is_dir() or _is_loop(path):
                yield _move_aside(layout, path, "is no file")
    for pattern in OWN_LINKS:
        for path in _matching(layout.machine, pattern):
            if not path.is_symlink():
                yield _move_aside(layout, path, "is no link")


def is_no_folder(path: Path) -> bool:
    """Whether something else lies where a folder belongs. A link to what isn't mounted now is a
    person's to mend."""
    return not path.is_dir() and (_is_loop(path) or path.exists())


def _matching(top: Path, pattern: str) -> Iterator[Path]:
    """The paths below `top` that match; unlike `glob`, also links that lead nowhere."""
    above, _, name = pattern.rpartition("/")
    for folder in _matching(top, above) if above else (top,):
        try:
            names = fnmatch.filter(os.listdir(folder), name)  # noqa: PTH208
        except OSError:
            continue
        yield from (folder / each for each in names)


def _open(top: Path) -> Iterator[str]:
    """Give this user the rights to read and enter everything that is his."""
    waiting = [top]
    while waiting:
        folder = waiting.pop()
        if _opened(folder, stat.S_IRWXU):
            yield f"{folder} can be entered again"
        try:
            entries = list(os.scandir(folder))
        except OSError:
            continue
        for entry in entries:
            path = Path(entry.path)
            if entry.is_dir(follow_symlinks=False):
                waiting.append(path)
            elif entry.is_file(follow_symlinks=False) and _opened(path, stat.S_IRUSR):
                yield f"{path} can be read again"


def _opened(path: Path, needed: int) -> bool:
    """Whether the owner, who is this user, lacked a right and has it now."""
    try:
        status = path.lstat()
    except OSError:
        return False
    if stat.S_ISLNK(status.st_mode) or status.st_uid != os.geteuid():
        return False
    if status.st_mode & needed == needed:
        return False
    path.chmod(stat.S_IMODE(status.st_mode) | needed | stat.S_IWUSR)
    return True


def _is_loop(path: Path) -> bool:
    try:
        path.stat()
    except OSError as error:
        return error.errno == errno.ELOOP
    return False


def _move_aside(layout: Layout, path: Path, why: str) -> str:
    if path.is_symlink():
        path.unlink()
        return f"{path} {why}: removed"
    folder = layout.left / REPAIRED
    if path == layout.left or layout.left.is_symlink() or layout.left.is_file():
        folder = layout.machine / REPAIRED
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / path.name
    number = 1
    while os.path.lexists(target):
        number += 1
        target = folder / f"{path.name}.{number}"
    path.rename(target)
    return f"{path} {why}: moved to {target}"
