"""Signals end a run or a command cleanly: children first, no traceback, exit code 128+n."""

from __future__ import annotations

import signal
import sys
from types import FrameType

from tasks.host import process

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_received: list[int] = []


def handle() -> None:
    """Install the handlers; also undoes an inherited "ignore", which children would inherit."""
    for number in ENDING:
        signal.signal(number, _leave)


def leaving() -> bool:
    return bool(_received)


def _leave(number: int, frame: FrameType | None) -> None:
    for again in ENDING:
        signal.signal(again, signal.SIG_IGN)
    _received.append(number)
    process.end_children()
    print(f"stopped by {signal.Signals(number).name}; run doit again to go on", file=sys.stderr)
    raise SystemExit(128 + number)
