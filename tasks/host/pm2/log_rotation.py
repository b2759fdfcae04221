"""Logs that PM2 writes, rotated: NAME.log becomes NAME.log.1, that NAME.log.2, and so on."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ...spec.layout import Layout
from ..system import files
from . import apps, pm2

APP_LOG = re.compile(rf"([a-z0-9-]+-gpu\d+|{'|'.join(apps.OURS)})\.log")
"""Logs of what PM2 runs; those of tasks are emptied by each run."""
QUIET = 0.05
"""Seconds in which a log must not have grown."""
PATIENCE = 2.0
"""Seconds to wait for that: what comes in a flood while PM2 changes files it may drop."""


@dataclass(frozen=True)
class Rules:
    """When a log is rotated, and what is kept of it."""

    max_size: int
    """Bytes."""
    max_age: float
    """Seconds; 0: never by age."""
    keep: int


def rotate(layout: Layout, rules: Rules) -> list[str]:
    """Rotate what is due and say which. Raises OSError, Failure."""
    begun = files.read_receipt(_note(layout))
    logs = {path.name: path for path in _logs(layout)}
    now = {name: _begun(path, begun.get(name)) for name, path in logs.items()}
    due = [path for name, path in sorted(logs.items()) if _due(path, now[name][1], rules)]
    for path in due:
        _wait_for_quiet(path)
        _shift(path, rules.keep)
        del now[path.name]
    if due:
        pm2.reopen_logs(layout)
        for path in due:
            _drop(path, rules.keep)
    if now != begun:
        files.write_receipt(_note(layout), now)
    return [path.name for path in due]


def mend(layout: Layout) -> None:
    """What was killed between the two steps left PM2 writing to a log that has another name."""
    rotated = (path.with_suffix("") for path in layout.logs.glob("*.log.1"))
    if any(APP_LOG.fullmatch(path.name) and not path.exists() for path in rotated):
        pm2.reopen_logs(layout)


def _note(layout: Layout) -> Path:
    """Which file each log is, and since when: file systems don't tell."""
    return layout.state / "logs.json"


def _logs(layout: Layout) -> Iterator[Path]:
    return (path for path in layout.logs.glob("*.log") if APP_LOG.fullmatch(path.name))


def _begun(path: Path, known: object) -> list[float]:
    """The inode of a log, and when it was first seen, in seconds since the epoch."""
    match known:
        case [inode, float(since)] if inode == path.stat().st_ino:
            return [inode, since]
    return [path.stat().st_ino, time.time()]


def _due(path: Path, since: float, rules: Rules) -> bool:
    size = path.stat().st_size
    old = bool(rules.max_age) and time.time() - since > rules.max_age
    return size > rules.max_size or (old and size > 0)


def _wait_for_quiet(path: Path) -> None:
    deadline = time.monotonic() + PATIENCE
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


def _drop(path: Path, keep: int) -> None:
    for rotated in path.parent.glob(f"{path.name}.*"):
        number = rotated.suffix[1:]
        if number.isdecimal() and int(number) > keep:
            files.remove(rotated)
