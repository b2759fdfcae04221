"""What the kernel's log says of its OOM killer, in records as they really are."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from comfy_machine.host.system import out_of_memory

RECORDS = [
    "4,338,5140000,-;python3 invoked oom-killer: gfp_mask=0x1100cca(GFP_HIGHUSER_MOVABLE), order=0",
    "6,339,5140900,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=docker-9f.scope,"
    "mems_allowed=0,oom_memcg=/docker/9f,task_memcg=/docker/9f,task=python3,pid=4711,uid=1000",
    "3,340,5140950,-;Memory cgroup out of memory: Killed process 4712 (python3) total-vm:9kB",
    " SUBSYSTEM=memory",
]


@pytest.mark.parametrize(
    ("pid", "started", "told"),
    [(4711, 3.0, True), (4711, 5.9, True), (4711, 60.0, False), (4712, 3.0, False)],
)
def test_the_log_names_the_process_that_was_killed(pid: int, started: float, told: bool) -> None:
    assert out_of_memory.killed(RECORDS, pid, started) is told


def test_the_log_of_this_machine_says_nothing_of_a_process_that_lives() -> None:
    assert not out_of_memory.names(os.getpid(), time.time() - 5)


CHILD = """
import os, pathlib, sys
(pathlib.Path(sys.argv[1]) / "cgroup.procs").write_text(str(os.getpid()))
sys.path.insert(0, sys.argv[2])
from comfy_machine.host.system import out_of_memory
print(out_of_memory.counter().file, flush=True)
block = bytearray(b"x") * 300_000_000
"""


@pytest.fixture
def small() -> Iterator[Path]:
    """A cgroup with 64 MB of memory."""
    for parent, limit in (("memory", "memory.limit_in_bytes"), ("", "memory.max")):
        folder = out_of_memory.CGROUPS / parent / f"comfy-machine-test-{os.getpid()}"
        try:
            folder.mkdir()
            (folder / limit).write_text("64000000")
        except OSError:
            if folder.is_dir():
                folder.rmdir()
            continue
        yield folder
        folder.rmdir()
        return
    pytest.skip("no cgroup can be made here")


def test_a_process_that_the_kernel_kills_is_named_by_its_log_and_counted_in_its_cgroup(
    small: Path,
) -> None:
    begin, root = time.time(), Path(out_of_memory.__file__).parents[3]
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, small, root], stdout=subprocess.PIPE, text=True
    )
    said, _ = child.communicate(timeout=60)
    if child.returncode != -signal.SIGKILL:
        pytest.skip("memory has no limit here, or swap")
    assert Path(said.strip()).parent == small
    assert out_of_memory.count(said.strip()) == 1
    try:
        os.close(os.open(out_of_memory.LOG, os.O_RDONLY | os.O_NONBLOCK))
    except OSError:
        return
    assert out_of_memory.names(child.pid, begin)
    assert not out_of_memory.names(child.pid, begin + 100)
