"""Signals end a run or a command cleanly: children first, no traceback, exit code 128+n."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from types import FrameType

from ..host.system import process

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
INSIST = 0.05
"""Seconds between two tries to wake the main thread."""
_received: list[int] = []


def handle() -> None:
    """Install the handlers; also undoes an inherited "ignore", which children would inherit."""
    if signal.getsignal(signal.SIGTERM) is _leave:
        return
    for number in ENDING:
        signal.signal(number, _leave)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_insist, args=(reader,), daemon=True).start()


def leaving() -> bool:
    return bool(_received)


def _insist(reader: int) -> None:
    """Send a signal again until the main thread has obeyed it.

    Python's handlers run between bytecodes of the main thread. One that comes just before that
    thread waits for a lock, as for the result of a task, would be obeyed when the wait is over,
    minutes later (seen in 45 of 750 runs on a loaded machine).
    """
    number = os.read(reader, 1)[0]
    while not _received:
        time.sleep(INSIST)
        signal.pthread_kill(threading.main_thread().ident or 0, number)


def _leave(number: int, frame: FrameType | None) -> None:
    for again in ENDING:
        signal.signal(again, signal.SIG_IGN)
    _received.append(number)
    process.end_children()
    print(f"stopped by {signal.Signals(number).name}; run doit again to go on", file=sys.stderr)
    raise SystemExit(128 + number)
