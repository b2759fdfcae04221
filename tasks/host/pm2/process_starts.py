"""The last starts of an app: its process, and where this one's part of the log begins.

The exec shim notes each start in the process itself, before it becomes the app.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from ...spec.layout import Layout
from ..system import files, out_of_memory
from . import apps

KEPT = 4
"""Starts that are kept; PM2 gives up on an app that ends three times at once."""


@dataclass(frozen=True)
class Start:
    """One start; `at` is in seconds since the epoch."""

    pid: int
    process: str
    """`apps.identity`"""
    at: float
    inode: int
    """Of the log; another one when it was rotated since. 0: there was none yet."""
    offset: int
    """The bytes in the log when the process started."""
    memory_events: str
    """The file in which the kernel counts what its OOM killer killed; empty: not known."""
    killed: int
    """That count when the process started."""

    @property
    def runs(self) -> bool:
        return apps.identity(self.pid) == self.process


def note(workspace: Path, name: str) -> None:
    """Note that this process is the app now, unless the workspace was removed. Raises OSError."""
    layout, pid = Layout(workspace), os.getpid()
    record = layout.starts(name)
    if not layout.state.is_dir():
        return
    inode = offset = 0
    with contextlib.suppress(OSError):
        status = layout.log(name).stat()
        inode, offset = status.st_ino, status.st_size
    counter = out_of_memory.counter()
    start = Start(
        pid, apps.identity(pid) or "", time.time(), inode, offset, counter.file, counter.killed
    )
    kept = [*read(layout, name), start][-KEPT:]
    files.clear_way(record)
    files.write_receipt(record, {"starts": [asdict(each) for each in kept]}, durable=False)


def is_noted(layout: Layout, name: str, pid: int) -> bool:
    """Whether this process of an app noted its start: those of older versions don't."""
    return any(start.pid == pid for start in read(layout, name))


def read(layout: Layout, name: str) -> list[Start]:
    """The last starts of an app, the newest last. Never raises."""
    try:
        return [Start(**each) for each in files.read_receipt(layout.starts(name))["starts"]]
    except (LookupError, TypeError):
        return []
