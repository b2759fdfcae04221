"""What ComfyUI adopts and what has ended is reaped, and nobody else's child is."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.rig import PROJECT

ADOPTS = """
import ctypes, glob, os, subprocess, sys, time
from comfy_machine.services.inside import orphans
ctypes.CDLL(None).prctl(36, 1)
orphans.attach()
own = subprocess.Popen([sys.executable, "-c", "raise SystemExit(7)"])
assert own.wait() == 7
os.system("(sleep 0.1 &)")
def children():
    lists = [open(each).read().split() for each in glob.glob("/proc/self/task/*/children")]
    return sum(lists, [])
assert children(), "it was adopted"
while children():
    time.sleep(0.02)
print("reaped")
"""


def test_an_orphan_that_ended_is_reaped() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", ADOPTS],
        cwd=PROJECT,
        env=os.environ | {"COMFY_MACHINE_ORPHANS": "0.2"},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert ended.stdout == "reaped\n", ended.stderr
