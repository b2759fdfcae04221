"""Reaps orphaned child processes that have ended.

ComfyUI's process is a child subreaper, so a background command of a custom node stays a zombie
until it is reaped. The kernel doesn't tell adopted children from others, so this waits: what
started a child of its own has reaped it by then. `COMFY_MACHINE_ORPHANS` is the wait in seconds.
"""

from __future__ import annotations

import contextlib
import glob
import os
import threading
import time


def attach() -> None:
    after = float(os.environ["COMFY_MACHINE_ORPHANS"])
    threading.Thread(target=_reap, args=(after,), daemon=True, name="orphans").start()


def _reap(after: float) -> None:
    ended: dict[int, float] = {}
    while True:
        time.sleep(after / 4)
        now = time.monotonic()
        ended = {pid: ended.get(pid, now) for pid in _children() if _has_ended(pid)}
        for pid, since in ended.items():
            if now - since >= after:
                with contextlib.suppress(OSError):
                    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)


def _children() -> list[int]:
    """The children of all threads; a list that can't be read counts as empty."""
    found = []
    for path in glob.glob("/proc/self/task/*/children"):  # noqa: PTH207
        with contextlib.suppress(OSError), open(path) as file:  # noqa: PTH123
            found += [int(word) for word in file.read().split()]
    return found


def _has_ended(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123
            return file.read().rpartition(b") ")[2][:1] == b"Z"
    except OSError:
        return False
