"""Reaps what this process adopted and what has ended since: a child subreaper has to, or each
background command that a custom node leaves would keep a process slot until the next restart.

`COMFY_MACHINE_ORPHANS` says after how many seconds. The kernel doesn't tell adopted children from
others; of others, whoever started them has asked how they ended long before.
"""

from __future__ import annotations

import contextlib
import glob
import os
import threading
import time


def attach() -> None:
    after = float(os.environ["COMFY_MACHINE_ORPHANS"])
    threading.Thread(target=_keep, args=(after,), daemon=True, name="orphans").start()


def _keep(after: float) -> None:
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
    """Of all threads; a list that went or can't be read has none."""
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
