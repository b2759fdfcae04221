"""Bring the machine up when it boots: `python boot.py COMMAND [ARG …]`, until COMMAND succeeds.

systemd could retry by itself, but a unit that waits for its next try has no stop command run, so
whatever the failed run started would stay. This is therefore one start that lasts. With `--stop`,
COMMAND runs once, unless systemd ends the unit because of a failure: that is no reason to end
instances that work.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

FIRST, LONGEST = 5.0, 300.0
"""Seconds before the second try, and at most; each wait is twice the previous one."""


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["--stop"]:
        ended_by = os.environ.get("SERVICE_RESULT", "success")
        return subprocess.call(arguments[1:]) if ended_by == "success" else 0
    signal.signal(signal.SIGTERM, _leave)
    wait, program = FIRST, Path(arguments[0]).name
    while code := subprocess.call(arguments):
        print(f"{program} ended with code {code}; trying again in {wait:g} s", flush=True)
        time.sleep(wait)
        wait = min(2 * wait, LONGEST)
    return 0


def _leave(number: int, frame: FrameType | None) -> None:
    """End COMMAND, which handles the signal, before this process ends."""
    import psutil

    children = psutil.Process().children()
    for child in children:
        child.terminate()
    psutil.wait_procs(children)
    raise SystemExit(0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
