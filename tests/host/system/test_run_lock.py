"""Who has a workspace, as somebody sees it who takes nothing."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from comfy_machine.host.system import files, locks, private_folder, process
from comfy_machine.host.system.run_lock import Holder, RunLock, Taken


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    files.remove(private_folder.folder(tmp_path))


def note(workspace: Path, text: str) -> None:
    (private_folder.make(workspace) / "run.lock").write_text(text)


def test_a_run_is_seen_with_what_it_does_until_it_ends(workspace: Path) -> None:
    lock, onlooker = RunLock(workspace), RunLock(workspace)
    assert onlooker.run() is None
    lock.take("models nodes:a")
    assert onlooker.run() == Holder(os.getpid(), "models nodes:a")
    assert onlooker.holder() == os.getpid()
    with pytest.raises(Taken, match=r"models nodes:a"):
        onlooker.take("other")
    lock.give_back()
    assert onlooker.run() is None
    onlooker.take("other")
    assert lock.run() == Holder(os.getpid(), "other")
    onlooker.give_back()


def test_a_killed_run_whose_pid_is_anothers_now_is_not_on(workspace: Path) -> None:
    note(workspace, f"{os.getpid()}.{time.time_ns()} models")
    assert RunLock(workspace).run() == Holder(os.getpid(), "models")
    note(workspace, f"{os.getpid()}.1500000000000000000 models")
    assert RunLock(workspace).run() is None


@pytest.mark.parametrize("text", ["", "nonsense", "1.x y", "999999999.5 a", "5", "-1.5 a", "\0.\0"])
def test_a_damaged_note_is_no_run(workspace: Path, text: str) -> None:
    note(workspace, text)
    assert RunLock(workspace).run() is None


def test_a_run_that_ends_is_named_until_it_is_gone_and_is_no_run_any_more(workspace: Path) -> None:
    lock = RunLock(workspace)
    lock.take("up")
    lock.release()
    assert RunLock(workspace).run() is None
    with pytest.raises(Taken, match=rf"pid {os.getpid()}, ending"):
        RunLock(workspace).take("other")
    lock.give_back()
    RunLock(workspace).take("other")


def test_who_has_just_taken_the_lock_is_named(workspace: Path) -> None:
    note(workspace, "4194304.1500000000000000000 what a killed run left")
    holder = locks.open_file(RunLock(workspace).path)
    assert locks.lock(holder)
    named = threading.Timer(0.2, note, (workspace, f"{process.run_id()} up"))
    named.start()
    with pytest.raises(Taken, match=rf"pid {os.getpid()}, up"):
        RunLock(workspace).take("other")
    named.join()
    os.close(holder)
