"""The journal as a run writes it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from doit.task import Stream, dict_to_task

from comfy_machine.engine.journal import Journal
from comfy_machine.engine.run import Run
from comfy_machine.engine.step import Action, read_failure, step
from comfy_machine.host.system import run_journal
from comfy_machine.host.system.failure import Failure
from comfy_machine.spec import Machine
from comfy_machine.spec.layout import Layout
from tests.conftest import MachineMaker
from tests.contract.client import until
from tests.forge import Forge

pytestmark = pytest.mark.afresh

RUN = Run(Machine.model_construct(workspace=Path("/nowhere")))
SECRET = "s3cret-of-git"


def one(
    name: str, *after: str, action: Action = lambda _: None, log: Path = Path(os.devnull)
) -> Any:
    """A task that does something, as doit has it."""
    made = step(RUN, name, f"Does {name}", check=lambda: None, action=action, log=log,
                after=after)  # fmt: skip
    del made["basename"]
    return dict_to_task({**made, "name": name})


TASKS = {
    "a": one("a"),
    "all": dict_to_task({"name": "all", "actions": None, "task_dep": ["b", "c"]}),
    "b": one("b", "a"),
    "c": one("c", "a", "b"),
    "other": one("other"),
    "last": one("last", "all", "c"),
}


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path)


@pytest.fixture
def writer(layout: Layout) -> Iterator[Journal]:
    writer = Journal(layout)
    yield writer
    writer.end("failed")


def seen(layout: Layout) -> run_journal.Journal:
    found = run_journal.read(layout)
    assert found
    return found


def version(layout: Layout) -> int:
    """Another one for each time that the file was written."""
    return layout.progress("run").stat().st_mtime_ns


def test_a_journal_has_what_was_asked_for_and_all_that_it_needs(
    layout: Layout, writer: Journal
) -> None:
    writer.begin(TASKS, ["last"])
    run = seen(layout)
    assert (run.command, run.state, run.percent) == ("last", "running", 0)
    assert [(task.name, task.after) for task in run.tasks] == [
        ("a", ()),
        ("b", ("a",)),
        ("c", ("a", "b")),
        ("last", ("b", "c")),
    ]
    assert {task.state for task in run.tasks} == {"waiting"}
    assert run.tasks[0].doc == "Does a"


def test_a_run_with_nothing_to_do_writes_twice(layout: Layout, writer: Journal) -> None:
    writer.begin(TASKS, ["last"])
    begun = version(layout)
    for name in TASKS:
        writer.change(name, state="up to date")
    assert writer._thread is None, "nobody would write"
    assert version(layout) == begun
    writer.end("succeeded")
    assert (seen(layout).state, seen(layout).percent) == ("succeeded", 100)
    assert not layout.progress("times").exists()


def test_what_is_told_last_is_written_and_what_took_how_long_is_kept(
    layout: Layout, writer: Journal
) -> None:
    writer.begin(TASKS, ["c"])
    writer.progress("a", 1.0, "not begun")
    writer.start("a", Path("a.log"))
    for number in range(1000):
        writer.progress("a", number / 10, f"{number} of 1000, from ftp://me:{SECRET}@localhost/")
    writer.progress("all", 5.0, "a group has no part in it")
    until(lambda: (seen(layout).tasks[0].detail or "").startswith("999 "), 10, "the last word")
    task = seen(layout).tasks[0]
    assert (task.state, task.percent, task.log) == ("running", 99.9, "a.log")
    assert SECRET not in layout.progress("run").read_text()
    writer.done("a")
    writer.fail("b", Failure("no luck"))
    task = seen(layout).tasks[0]
    assert (task.state, task.percent, task.detail) == ("done", None, "")
    assert task.seconds
    assert (seen(layout).tasks[1].reason, seen(layout).tasks[1].log) == ("no luck", None)
    layout.progress("times").write_text(json.dumps({"a": 1.0, "other": 3.0, "gone": 4.0}))
    writer.end("interrupted")
    writer.progress("a", 5.0, "too late")
    writer.fail("c", Failure("too late"))
    assert seen(layout).state == "interrupted"
    assert seen(layout).tasks[2].state == "waiting"
    assert run_journal.read_times(layout) == {"a": task.seconds, "other": 3.0}


def test_a_run_that_leaves_tasks_open_did_not_succeed(layout: Layout, writer: Journal) -> None:
    writer.begin(TASKS, ["a"])
    writer.end("succeeded")
    assert seen(layout).state == "failed"


def test_a_run_goes_on_where_no_journal_can_be_written(layout: Layout, writer: Journal) -> None:
    layout.machine.write_text("a file where the folder belongs")
    writer.begin(TASKS, ["last"])
    writer.start("a", Path("a.log"))
    writer.done("a")
    writer.fail("b", Failure("no luck"))
    writer.end("failed")
    assert layout.machine.is_file()


def test_what_changes_nothing_has_no_journal(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "ws", tmp_path / "overlay")
    writer = Journal(layout)
    writer.begin(TASKS, ["last"])
    writer.start("a", Path("a.log"))
    writer.fail("a", Failure("no luck"))
    writer.end("failed")
    assert list(tmp_path.iterdir()) == []


def test_no_credential_of_a_failure_is_written(
    layout: Layout, writer: Journal, tmp_path: Path
) -> None:
    def action(log: Path) -> None:
        raise RuntimeError(f"fatal: http://me:{SECRET}@localhost/pack not found")

    task = one("a", action=action, log=tmp_path / "a.log")
    writer.begin(TASKS, ["a"])
    writer.fail("a", read_failure(task.execute(Stream(0))))
    (failed,) = seen(layout).of("failed")
    assert failed.reason == "unexpected RuntimeError: fatal: http://***@localhost/pack not found"
    assert failed.log == str(tmp_path / "a.log")
    assert SECRET not in layout.progress("run").read_text()


def test_a_failed_run_says_which_task_and_why_and_what_was_not_done_for_it(
    machine: MachineMaker, forge: Forge
) -> None:
    nowhere = (forge.folder / "bad").as_uri()
    rig = machine(custom_nodes=[{"url": forge.node("good").url}, {"url": nowhere}])
    failed = rig.doit("build", code=2)
    run = seen(rig.layout)
    assert (run.command, run.state) == ("build", "failed")
    (bad,) = run.of("failed")
    assert bad.name == "nodes:bad"
    assert bad.reason.startswith(f"{nowhere} isn't there: correct the url")
    assert f"✗ nodes:bad: {bad.reason}\n" in failed.output
    held = [task.name for task in run.of("held back")]
    assert {"lock", "environment", "validation"} <= set(held)
    assert not run.of("waiting")
    assert not run.of("running")
    good = next(task for task in run.of("done") if task.name == "nodes:good")
    assert run_journal.read_times(rig.layout)["nodes:good"] == good.seconds
    assert (
        f"the last run failed: nodes:bad: {bad.reason}; correct the error, then run doit\n"
        in rig.doit("status", code=1).output
    )
    told = json.loads(rig.doit("status", "--json", code=1).output)["run"]
    assert (told["process"], told["task"], told["state"]) == (None, "nodes:bad", "failed")
    assert told["reason"] == bad.reason
