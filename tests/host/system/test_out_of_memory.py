"""What the kernel's log says of its OOM killer, in records as they really are."""

from __future__ import annotations

import os
import time

import pytest

from tasks.host.system import out_of_memory

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
