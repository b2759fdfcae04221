"""How the processes of apps ended: their exit code or signal, as PM2's daemon logs it.

PM2 keeps the code in `pm2_env`, but 0 where a signal ended the process, and the signal nowhere
else. Source of the line: `handleExit` in lib/God.js of PM2 7.0.4, the version that we install; it
writes SIGINT where there is no signal.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ..system import files

TAIL = 1 << 20
"""Bytes at the end of the daemon's log that are read."""
_EVENT = re.compile(
    rb"^\S+ PM2 log: App \[(?P<name>[^\]]+):\d+\] (?:starting in |exited with code "
    rb"\[(?P<code>\d+)\] via signal \[(?P<signal>\w+)\])",
    re.M,
)


@dataclass(frozen=True)
class Exit:
    """The status with which a process ended."""

    code: int
    signal: str | None
    """Such as SIGKILL; None: it exited by itself."""


def log_of(home: Path) -> Path:
    """The daemon's log; `doit down` removes it."""
    return home / "pm2.log"


def read(home: Path) -> dict[str, list[Exit | None]]:
    """App → how each of its processes ended, the last one last; empty where it isn't known.

    None: it runs, or its end was not seen: the daemon was killed before.
    """
    try:
        with files.open_regular(log_of(home)) as file:
            file.seek(max(0, file.seek(0, 2) - TAIL))
            content = file.read(TAIL)
    except OSError:
        return {}
    found: dict[str, list[Exit | None]] = {}
    for event in _EVENT.finditer(content):
        processes = found.setdefault(event["name"].decode(), [])
        if event["code"] is None:
            processes.append(None)
            continue
        signal = event["signal"].decode()
        ended = Exit(int(event["code"]), None if signal == "SIGINT" else signal)
        # The start of the first one may lie before the part that was read.
        processes[-1:] = [ended]
    return found
