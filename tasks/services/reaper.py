"""Run a command, then end all that it left behind: `python reaper.py COMMAND [ARG …]`.

This process is a child subreaper, so the kernel reparents every descendant to it, whatever that
does to escape (a new session, a double fork, another environment). It ends as the command did, with
the same exit code or signal. On SIGTERM, or when the process that started it ends, it ends all
descendants.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from types import FrameType

import psutil

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
"""From <linux/prctl.h>."""
KILL_TIMEOUT = 5.0
"""Seconds to wait for killed processes; one in uninterruptible sleep may stay."""


def main(command: list[str]) -> None:
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    signal.signal(signal.SIGTERM, _leave)
    try:
        code = subprocess.call(command)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        end_descendants()
    if code < 0:
        signal.signal(-code, signal.SIG_DFL) if -code != signal.SIGKILL else None
        os.kill(os.getpid(), -code)
    sys.exit(code)


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def end_descendants() -> None:
    """Kill them until none is left; one may start another before it is killed."""
    deadline = time.monotonic() + KILL_TIMEOUT
    while time.monotonic() < deadline:
        left = psutil.Process().children(recursive=True)
        running = [each for each in left if _runs(each)]
        if not running:
            return
        for each in running:
            _kill(each)
        psutil.wait_procs(running, 0.2)


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _kill(process: psutil.Process) -> None:
    try:
        name = " ".join(process.cmdline())[:200] or process.name()
        print(f"ended a process that was left behind: {name} (pid {process.pid})", flush=True)
        process.kill()
    except psutil.NoSuchProcess:
        return


if __name__ == "__main__":
    main(sys.argv[1:])
