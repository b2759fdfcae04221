"""Steps: an intent as a task."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from comfy_machine.engine.run import Run
from comfy_machine.engine.step import UpToDate, step
from comfy_machine.host.system.failure import Failure
from comfy_machine.spec import load
from tests.rig import DOIT

Check = Callable[[], str | None]


def raising(error: Exception) -> Check:
    def check() -> str | None:
        raise error

    return check


def test_what_holds_is_up_to_date_and_says_so() -> None:
    holds = UpToDate(lambda: None)
    assert holds() is True
    assert repr(holds) == "up to date"


def test_what_does_not_hold_has_the_reason_as_its_repr() -> None:
    holds = UpToDate(lambda: "the link is missing")
    assert holds() is False
    assert repr(holds) == "the link is missing"


@pytest.mark.parametrize(
    "error",
    [OSError("disk"), json.JSONDecodeError("x", "", 0), KeyError("name"), IndexError("1"),
     TypeError("None"), UnicodeDecodeError("utf-8", b"", 0, 1, "x"), Failure("no git")],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_a_check_that_fails_means_do_it_again_and_never_raises(error: Exception) -> None:
    holds = UpToDate(raising(error))
    assert holds() is False
    assert str(error) in repr(holds)


def test_a_failure_and_a_reason_repeat_no_credentials() -> None:
    error = "can't fetch https://me:s3cret@host/a"
    assert str(Failure(error)) == "can't fetch https://***@host/a"
    for kind in (Failure, RuntimeError):
        holds = UpToDate(raising(kind(error)))
        assert holds() is False
        assert "s3cret" not in repr(holds)


def test_a_reason_that_is_gone_is_not_repeated() -> None:
    reasons: list[str | None] = ["first", None]
    holds = UpToDate(lambda: reasons.pop(0))
    assert [holds(), holds()] == [False, True]
    assert repr(holds) == "up to date"


def run(folder: Path) -> Run:
    """A run of the smallest machine."""
    file = folder / "machine.yaml"
    file.write_text("workspace: ws\ncomfyui: {}\n")
    return Run(load(file, {}))


@pytest.mark.parametrize(
    ("name", "basename", "sub"), [("source", "source", None), ("pm2:gpu0", "pm2", "gpu0")]
)
def test_a_name_with_a_colon_is_a_sub_task(
    tmp_path: Path, name: str, basename: str, sub: str | None
) -> None:
    task = step(
        run(tmp_path), name, "doc", check=lambda: None, action=lambda log: None, after=["x"]
    )
    assert (task["basename"], task.get("name"), task["task_dep"]) == (basename, sub, ["x"])
    assert "file_dep" not in task


DODO = """
from pathlib import Path
from comfy_machine.engine.run import Run
from comfy_machine.engine.step import step
from comfy_machine.host.system import process
from comfy_machine.host.system.failure import Failure
from comfy_machine.spec import load

DOIT_CONFIG = {{"dep_file": ":memory:", "backend": "sqlite3"}}
HERE = Path({here!r})
RUN = Run(load(HERE / "machine.yaml", {{}}))


def refused(log):
    raise Failure("alpha isn't there: correct url")


def refused_after_output(log):
    log.write_text("what git said")
    raise Failure("beta is private")


def failed_command(log):
    process.run(["sh", "-c", "echo reason; exit 3"], env={{}}, log=log)


def bug(log):
    return {{}}["canary-key"]


def bug_with_a_url(log):
    raise RuntimeError("cmdline: git clone https://me:s3cret@host/a")


def task_steps():
    for action in (refused, refused_after_output, failed_command, bug, bug_with_a_url):
        name = action.__name__
        yield step(RUN, name, name, check=lambda: "never", action=action,
                   log=HERE / "logs" / f"{{name}}.log")
"""


def test_failures_are_one_line_and_a_log_and_bugs_go_to_the_log(tmp_path: Path) -> None:
    run(tmp_path)
    (tmp_path / "dodo.py").write_text(DODO.format(here=str(tmp_path)))
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "bug.log").write_text("of an earlier run\n")
    project = Path(__file__).parents[2]
    ended = subprocess.run(
        [sys.executable, str(DOIT), "--continue"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(project)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    logs = tmp_path / "logs"
    said = [line.strip() for line in ended.stdout.splitlines()]
    assert ended.returncode == 1
    assert "alpha isn't there: correct url" in ended.stdout
    assert f"log: {logs / 'refused.log'}" not in said, "an empty log is not shown"
    for name in ("refused_after_output", "failed_command", "bug"):
        assert f"log: {logs / f'{name}.log'}" in said
    assert "unexpected KeyError: 'canary-key'" in ended.stdout
    assert "Traceback" not in ended.stdout
    written = (logs / "bug.log").read_text()
    assert "Traceback (most recent call last)" in written
    assert 'return {}["canary-key"]' in written
    assert "of an earlier run" not in written
    assert "reason" in (logs / "failed_command.log").read_text()
    for text in (ended.stdout, (logs / "bug_with_a_url.log").read_text()):
        assert "RuntimeError: cmdline: git clone https://***@host/a" in text
        assert "s3cret" not in text
