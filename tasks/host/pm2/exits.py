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
_ENDED = re.compile(
    rb"^\S+ PM2 log: App \[(?P<name>[^\]]+):\d+\] exited with code \[(?P<code>\d+)\]"
    rb" via signal \[(?P<signal>\w+)\]$",
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


def read(home: Path) -> dict[str, list[Exit]]:
    """App → how its processes ended, the last one last; empty where it isn't known."""
    try:
        with files.open_regular(log_of(home)) as file:
            file.seek(max(0, file.seek(0, 2) - TAIL))
            content = file.read(TAIL)
    except OSError:
        return {}
    found: dict[str, list[Exit]] = {}
    for line in _ENDED.finditer(content):
        signal = line["signal"].decode()
        ended = Exit(int(line["code"]), None if signal == "SIGINT" else signal)
        found.setdefault(line["name"].decode(), []).append(ended)
    return found
