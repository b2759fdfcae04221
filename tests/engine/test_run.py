"""One run at a time, and what is left of a run that was stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from comfy_machine.host.pm2 import apps
from comfy_machine.host.system import files, private_folder, run_journal
from comfy_machine.host.system.run_lock import RunLock, Taken
from tests.conftest import MachineMaker
from tests.contract.client import until
from tests.forge import Forge
from tests.rig import Rig

pytestmark = pytest.mark.afresh


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@dataclass
class Going:
    """A run that is in the middle of a node's script."""

    process: subprocess.Popen[str]
    script: int

    def end(self, number: signal.Signals) -> tuple[int, str]:
        """Send a signal; the exit code and all that was printed."""
        self.process.send_signal(number)
        printed, _ = self.process.communicate(timeout=30)
        return self.process.returncode, printed


@dataclass
class Slow:
    """A machine with a node whose script takes for ever until `go` is there."""

    rig: Rig
    go: Path
    pid: Path

    @contextmanager
    def run(self) -> Iterator[Going]:
        self.pid.unlink(missing_ok=True)
        try:
            with self.rig.going("build") as process:
                until(
                    lambda: (
                        process.poll() is not None
                        or (self.pid.exists() and self.pid.read_text().endswith("\n"))
                    ),
                    60,
                    "the script to run",
                )
                if process.poll() is not None:
                    raise AssertionError(process.communicate()[0])
                yield Going(process, int(self.pid.read_text()))
        finally:
            if self.pid.exists() and not gone(int(self.pid.read_text())):
                psutil.Process(int(self.pid.read_text())).kill()


@pytest.fixture
def slow(machine: MachineMaker, forge: Forge, tmp_path: Path) -> Slow:
    go, pid = tmp_path / "go", tmp_path / "pid"
    script = f"echo $$ > {pid}; test -e {go} || exec sleep 300"
    rig = machine(custom_nodes=[{"url": forge.node("alpha").url, "script": script}])
    return Slow(rig, go, pid)


def test_a_second_run_is_refused_at_once_and_a_killed_one_gives_the_lock_back(slow: Slow) -> None:
    with slow.run() as going:
        for command in ("build", "down"):
            refused = slow.rig.doit(command, code=None)
            assert refused.code == 2, refused.output
            assert f"pid {going.process.pid}" in refused.output
            assert "generation:scripts" in refused.output
            assert "Traceback" not in refused.output
            assert not gone(going.script)
        refused = slow.rig.doit("clean", code=3)
        assert f"pid {going.process.pid}" in refused.output
        assert list(slow.rig.layout.sources.glob("alpha@*"))
        status = json.loads(slow.rig.doit("status", "--json", code=1).output)
        assert status["instances"]["0"]["pid"] is None
        assert (status["run"]["state"], status["run"]["task"]) == ("running", "generation:scripts")
        assert "generation:assemble" not in slow.rig.doit("list").output
        _sees_it_on(slow.rig, going.process.pid)
        going.process.kill()
        # Whoever started it may not look after it for a while.
        until(lambda: gone(going.process.pid), 10, "its end")
        _sees_it_interrupted(slow.rig)
        going.process.communicate()
    slow.go.touch()
    assert "generation:scripts" in slow.rig.doit("build").executed
    _sees_it_done(slow.rig)
    written = slow.rig.layout.progress("times").read_text()
    assert slow.rig.doit("build").executed == set()
    assert seen(slow.rig).of("up to date") == list(seen(slow.rig).tasks)
    assert slow.rig.layout.progress("times").read_text() == written, "what took how long stays"


def seen(rig: Rig) -> run_journal.Journal:
    found = run_journal.read(rig.layout)
    assert found
    return found


def task(rig: Rig, name: str) -> run_journal.Task:
    return next(task for task in seen(rig).tasks if task.name == name)


def _sees_it_on(rig: Rig, pid: int) -> None:
    until(lambda: task(rig, "generation:scripts").state == "running", 10, "the journal")
    run = seen(rig)
    assert (run.pid, run.command, run.state) == (pid, "build", "running")
    names = [each.name for each in run.tasks]
    assert names[:4] == ["directories", "supervisor", "source", "nodes:alpha"]
    assert not {"nodes", "build", "links", "up"} & set(names), (
        "it was not asked for, or does nothing"
    )
    assert {each.state for each in run.tasks} == {"done", "up to date", "running", "waiting"}
    assert {task(rig, name).state for name in ("validation",)} == {"waiting"}
    scripts = task(rig, "generation:scripts")
    assert scripts.after == ("generation:assemble",)
    assert scripts.log == str(rig.layout.log("generation:scripts"))
    assert scripts.doc.startswith("Run the nodes' install scripts, ")
    assert 0 < (scripts.seconds or 0) < run.seconds
    assert 0 < (run.percent or 0) < 100
    assert run.seconds_left is None, "no run has shown how long anything takes"


def _sees_it_interrupted(rig: Rig) -> None:
    run = seen(rig)
    assert (run.state, run.seconds_left) == ("interrupted", None)
    assert [each.name for each in run.of("running")] == ["generation:scripts"]
    said = (
        "the last run was interrupted, at generation:scripts; run doit: it continues where it was"
    )
    assert said in rig.doit("status", code=1).output


def _sees_it_done(rig: Rig) -> None:
    run = seen(rig)
    assert (run.state, run.percent, run.done) == ("succeeded", 100, len(run.tasks))
    done = {each.name for each in run.of("done")}
    assert {"generation:scripts", "validation"} <= done
    assert "environment" not in done, "the run before had made it"
    assert set(run_journal.read_times(rig.layout)) == done


def test_an_interrupted_run_leaves_nothing_running_and_the_next_one_goes_on(slow: Slow) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        with slow.run() as going:
            family = psutil.Process(going.process.pid).children(recursive=True)
            assert going.script in {child.pid for child in family}
            code, printed = going.end(number)
            assert code == 128 + number, printed
            assert "Traceback" not in printed
            assert f"stopped by {number.name}" in printed
            assert seen(slow.rig).state == "interrupted"
            until(lambda: all(gone(child.pid) for child in family), 10, "the children's end")  # noqa: B023
    slow.go.touch()
    assert "generation:scripts" in slow.rig.doit("build").executed
    assert slow.rig.doit("build").executed == set()
    assert apps.running(slow.rig.workspace, None) == []


def test_what_a_run_prints_can_go_into_a_file(machine: MachineMaker, tmp_path: Path) -> None:
    printed = tmp_path / "printed"
    assert machine().doit("run", "-o", str(printed), "directories").output == ""
    assert "✓ directories" in printed.read_text()


def test_the_lock_is_one_workspaces_and_names_its_holder(tmp_path: Path) -> None:
    try:
        lock = RunLock(tmp_path)
        lock.take("up")
        lock.note("nodes:alpha nodes:beta")
        with pytest.raises(Taken) as caught:
            RunLock(tmp_path).take("up")
        assert f"(pid {os.getpid()}, nodes:alpha nodes:beta)" in str(caught.value)
        RunLock(tmp_path / "other").take("up")
        lock.note("x")
        with pytest.raises(Taken, match=rf"pid {os.getpid()}, x\)"):
            RunLock(tmp_path).take("up")
    finally:
        for workspace in (tmp_path, tmp_path / "other"):
            files.remove(private_folder.folder(workspace))
