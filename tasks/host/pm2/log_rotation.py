"""Rotation of PM2's logs: NAME.log becomes NAME.log.1, that becomes NAME.log.2, and so on."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path

from ...spec.layout import Layout
from ..system import files
from . import apps, pm2

APP_LOG = re.compile(rf"({apps.DECLARED.pattern}|{'|'.join(apps.OURS)})\.log")
"""Logs of PM2's apps; those of tasks are emptied by each run."""
QUIET = 0.05
"""A log is rotated after it hasn't grown for so many seconds."""
MAX_WAIT = 2.0
"""Seconds to wait for that; PM2 may drop output while it reopens files."""


@dataclass(frozen=True)
class Rules:
    """When a log is rotated, and how many old ones are kept."""

    max_size: int
    """Bytes."""
    max_age: float
    """Seconds; 0: never by age."""
    keep: int


def rotate(layout: Layout, rules: Rules) -> list[str]:
    """Rotate the logs that are due; return their names. Raises OSError, Failure."""
    recorded = files.read_receipt(_record(layout))
    logs = [path for path in sorted(layout.logs.glob("*.log")) if APP_LOG.fullmatch(path.name)]
    starts = {path.name: _start(path, recorded.get(path.name)) for path in logs}
    due = [path for path in logs if _is_due(path, starts[path.name][1], rules)]
    for path in due:
        _wait_for_quiet(path)
        _shift(path, rules.keep)
        del starts[path.name]
    if due:
        pm2.reopen_logs(layout)
        for path in due:
            _remove_old(path, rules.keep)
    if starts != recorded:
        files.write_receipt(_record(layout), starts)
    return [path.name for path in due]


def mend(layout: Layout) -> None:
    """Finish a rotation that was killed: PM2 still writes to a renamed log."""
    rotated = (path.with_suffix("") for path in layout.logs.glob("*.log.1"))
    if any(APP_LOG.fullmatch(path.name) and not path.exists() for path in rotated):
        pm2.reopen_logs(layout)


def _record(layout: Layout) -> Path:
    """The inode and start of each log: file systems don't record when a file was created."""
    return layout.state / "logs.json"


def _start(path: Path, recorded: object) -> list[float]:
    """The inode of a log, and when it was first seen, in seconds since the epoch."""
    match recorded:
        case [inode, float(since)] if inode == path.stat().st_ino:
            return [inode, since]
    return [path.stat().st_ino, time.time()]


def _is_due(path: Path, since: float, rules: Rules) -> bool:
    size = path.stat().st_size
    is_old = bool(rules.max_age) and time.time() - since > rules.max_age
    return size > rules.max_size or (is_old and size > 0)


def _wait_for_quiet(path: Path) -> None:
    deadline = time.monotonic() + MAX_WAIT
    while time.monotonic() < deadline:
        size = path.stat().st_size
        time.sleep(QUIET)
        if path.stat().st_size == size:
            return


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


def _shift(path: Path, keep: int) -> None:
    for number in range(keep, 0, -1):
        if (older := _numbered(path, number)).exists():
            older.replace(_numbered(path, number + 1))
    path.replace(_numbered(path, 1))


def _remove_old(path: Path, keep: int) -> None:
    for rotated in path.parent.glob(f"{path.name}.*"):
        number = rotated.suffix[1:]
        if number.isdecimal() and int(number) > keep:
            files.remove(rotated)
