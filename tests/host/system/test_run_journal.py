"""The journal as its readers have it: states, estimates, and files that are no journal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from comfy_machine.host.system import files, process, run_journal
from comfy_machine.host.system.run_journal import Task
from comfy_machine.spec.layout import Layout
from tests.contract.client import until

HERE = f"{os.getpid()}.{time.time_ns()}"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path)


def write(layout: Layout, **changes: Any) -> None:
    """A journal of this process, begun 60 s ago, with one task that runs since 40 s."""
    now = time.time()
    tasks = [
        {"name": "source", "doc": "", "state": "done", "seconds": 20.0},
        {"name": "lock", "doc": "", "after": ["source"], "state": "running", "began": now - 40},
        {"name": "build", "doc": "", "after": ["lock"]},
    ]
    notes = {"pid": os.getpid(), "run": HERE, "command": "up", "began": now - 60, "noted": now - 30}
    text = json.dumps({**notes, "state": "running", "tasks": tasks, **changes})
    files.write_text(layout.progress("run"), text)


def seen(layout: Layout) -> run_journal.Journal:
    found = run_journal.read(layout)
    assert found
    return found


def test_a_run_that_is_on_is_told_as_of_now(layout: Layout) -> None:
    assert run_journal.read(layout) is None
    write(layout)
    run = seen(layout)
    assert (run.pid, run.command, run.state, run.done) == (os.getpid(), "up", "running", 1)
    assert 60 <= run.seconds < 90
    assert 40 <= (run.tasks[1].seconds or 0) < 70
    assert [task.name for task in run.of("waiting")] == ["build"]
    assert run.seconds_left is None
    assert round(run.percent or 0) == 33, "one task of three"
    files.write_receipt(layout.progress("times"), {"lock": 100, "build": 30.0, "odd": "x"})
    run = seen(layout)
    assert 60 < (run.seconds_left or 0) <= 90
    assert 40 <= (run.percent or 0) < 60


def test_a_run_that_ended_is_told_as_of_its_end(layout: Layout) -> None:
    write(layout, state="failed", run="1.5")
    run = seen(layout)
    assert (run.state, round(run.seconds), run.seconds_left) == ("failed", 30, None)


def test_a_run_whose_process_is_gone_was_interrupted(layout: Layout) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    write(layout, pid=child.pid, run=f"{child.pid}.{time.time_ns()}")
    assert seen(layout).state == "running"
    child.kill()
    zombie = psutil.STATUS_ZOMBIE
    until(lambda: psutil.Process(child.pid).status() == zombie, 10, "its end")
    assert seen(layout).state == "interrupted", "though nobody has taken note of its end"
    child.communicate()
    assert seen(layout).state == "interrupted"
    assert round(seen(layout).seconds) == 30, "until it was last heard of"


def test_a_pid_that_came_again_after_a_reboot_is_not_the_run(layout: Layout) -> None:
    write(layout, run=f"{os.getpid()}.1500000000000000000")
    assert seen(layout).state == "interrupted"


@pytest.mark.parametrize(
    "changes",
    [{"tasks": 5}, {"tasks": [{"name": "a"}]}, {"began": "x"}, {"pid": None}, {"state": "odd"}],
)
def test_a_damaged_journal_is_none(layout: Layout, changes: dict[str, Any]) -> None:
    write(layout)
    assert run_journal.read(layout)
    write(layout, **changes)
    assert run_journal.read(layout) is None


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\0", '{"pid": 1}', "[" * 100_000])
def test_what_is_no_journal_is_none(layout: Layout, text: str) -> None:
    files.write_text(layout.progress("run"), text)
    assert run_journal.read(layout) is None
    write(layout)
    files.write_text(layout.progress("times"), text)
    assert seen(layout).seconds_left is None


def test_a_journal_with_an_id_of_no_process_was_interrupted(layout: Layout) -> None:
    for odd in ("", "x", "-1.5", "5", f"{1 << 80}.1"):
        write(layout, run=odd)
        assert seen(layout).state == "interrupted", odd
    assert process.is_run(process.run_id())


def waiting(name: str, *after: str) -> Task:
    return Task(name, "", after)


def running(name: str, *after: str, seconds: float = 10, percent: float | None = None) -> Task:
    return Task(name, "", after, "running", began=1.0, seconds=seconds, percent=percent)


TIMES = {"a": 30.0, "b": 100.0, "c": 50.0, "d": 5.0}


@pytest.mark.parametrize(
    ("tasks", "left"),
    [
        ([], None),
        ([Task("a", "", (), "done"), Task("b", "", (), "held back")], None),
        ([running("a")], 20),
        ([running("a", seconds=45)], 0),
        ([running("a"), running("c")], 40),
        ([running("a"), waiting("b", "a"), waiting("c", "b")], 170),
        ([running("a"), waiting("b", "a"), waiting("c", "a"), waiting("d", "b", "c")], 125),
        ([waiting("d", "b"), waiting("b", "a"), running("a")], 125),
        ([Task("a", "", (), "up to date"), waiting("b", "a")], 100),
        ([running("a", percent=25)], 30),
        ([running("new", percent=50)], 10),
        ([running("a", percent=0.5)], 20),
        ([running("new")], None),
        ([running("new"), waiting("b", "new")], 100),
        ([running("a"), waiting("new", "a")], None),
        ([running("new", percent=90), waiting("other", "new")], None),
        ([waiting("a", "b"), waiting("b", "a")], 130),
    ],
)
def test_what_is_left_is_the_longest_chain(tasks: list[Task], left: float | None) -> None:
    assert run_journal.seconds_left(tasks, TIMES) == left
