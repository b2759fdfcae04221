"""While a plan runs, nothing real is written: writes of this process are refused as they happen.

A step sends what it writes into the overlay; one that forgets fails here, in whatever library.
https://docs.python.org/3/library/audit_events.html
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..host.system import user_cache
from .run import Run

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
#: Of each event the arguments that are a path that changes, and the descriptor that it is below.
CHANGES = {
    "os.chmod": ((0, 2),),
    "os.chown": ((0, 3),),
    "os.link": ((1, 3),),
    "os.mkdir": ((0, 2),),
    "os.remove": ((0, 1),),
    "os.rename": ((0, 2), (1, 3)),
    "os.rmdir": ((0, 1),),
    "os.symlink": ((1, 2),),
    "os.truncate": ((0, None),),
    "os.utime": ((0, 3),),
}


class RealWrite(Exception):  # noqa: N818  a bug of ours; not an OSError, which is often expected
    """A step of a plan writes to a real file: the path isn't of the overlay."""


class _Guard:
    """Audit hooks stay for good, so there is one, which asks what is protected now."""

    protects: Callable[[str], bool] | None = None
    refused: list[str] = []  # noqa: RUF012
    hooked = False


@contextmanager
def only_overlay(run: Run, *, lock: bool = False) -> Iterator[list[str]]:
    """Refuse every write to the machine that isn't below the run's overlay, with RealWrite.

    Yields the list of refused paths, since a step may catch the exception. With `lock` machine.lock
    may be written. Temporary files, also those of children, go into the overlay.
    """
    assert run.overlay is not None
    if not _Guard.hooked:
        sys.addaudithook(_hook)
        _Guard.hooked = True
    temporary, bytecode = os.environ.get("TMPDIR"), sys.dont_write_bytecode
    os.environ["TMPDIR"], tempfile.tempdir, sys.dont_write_bytecode = str(run.overlay), None, True
    _Guard.protects, _Guard.refused = _protection(run, run.overlay, lock), []
    try:
        yield _Guard.refused
    finally:
        _Guard.protects, tempfile.tempdir, sys.dont_write_bytecode = None, None, bytecode
        os.environ.pop("TMPDIR")
        if temporary is not None:
            os.environ["TMPDIR"] = temporary


def _protection(run: Run, overlay: Path, lock: bool) -> Callable[[str], bool]:
    """Tells whether a real path belongs to the machine: workspace, models, local folders, files."""
    machine = run.machine
    roots = _inner(
        machine.workspace,
        machine.models.folder,
        machine.models.store,
        machine.comfyui.path,
        *(root.path for root in machine.models.extra_roots),
        *(node.path for node in machine.custom_nodes),
    )
    # What is fetched is cached, and the cache may be in the workspace.
    free = _inner(overlay, user_cache.folder())
    ours = {os.path.realpath(file) for file in (machine.file, machine.lock_file)}
    # An atomic write begins beside the file.
    lock_folder = os.path.dirname(os.path.realpath(machine.lock_file)) if lock else None  # noqa: PTH120

    def protects(path: str) -> bool:
        if f"{path}/".startswith(free) or os.path.dirname(path) == lock_folder:  # noqa: PTH120
            return False
        if any(each.startswith(f"{path}/") for each in free):
            return False
        return path in ours or f"{path}/".startswith(roots)

    return protects


def _inner(*folders: Path | None) -> tuple[str, ...]:
    return tuple(f"{os.path.realpath(folder)}/" for folder in folders if folder)


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    protects = _Guard.protects
    if protects is None:
        return
    if event == "open":
        writes = isinstance(arguments[2], int) and arguments[2] & WRITING
        places = [os.path.realpath(arguments[0])] if writes and _is_path(arguments[0]) else []
    else:
        changes = CHANGES.get(event, ())
        places = [_place(arguments, *each) for each in changes if _is_path(arguments[each[0]])]
    for path in places:
        if protects(path):
            _Guard.refused.append(path)
            raise RealWrite(path)


def _is_path(value: object) -> bool:
    return isinstance(value, (str, bytes, os.PathLike))


def _place(arguments: tuple[Any, ...], path: int, below: int | None) -> str:
    """The real path of a name that changes; what it points to, if it is a link, doesn't."""
    folder, name = os.path.split(os.fsdecode(arguments[path]))
    descriptor = arguments[below] if below is not None else -1
    if isinstance(descriptor, int) and descriptor >= 0:
        folder = os.path.join(f"/proc/self/fd/{descriptor}", folder)  # noqa: PTH118
    return os.path.join(os.path.realpath(folder or "."), name)  # noqa: PTH118
