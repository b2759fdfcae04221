"""Turn a check and an action into a doit task.

A step has no `file_dep` and no saved value: each run reads from the disk (receipts, commits,
links, processes) whether it is up to date, so doit's database is empty and in memory.
"""

from __future__ import annotations

import contextlib
import errno
import os
import traceback
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from doit.exceptions import BaseFail, TaskFailed

from ..host.system import files
from ..host.system.failure import Failure
from ..host.system.program_files import PROGRAM
from ..host.system.redaction import redact
from .run import Run

Task = dict[str, Any]
Check = Callable[[], str | None]
"""Returns None when the step is up to date, else the reason why not."""
Action = Callable[[Path], None]
Preview = Callable[[Path], Iterable[str]]
"""Returns what the action would do, in lines; writes what later steps read into the overlay."""


MENDABLE = frozenset(
    getattr(errno, name) for name in "EACCES EPERM ENOENT EEXIST ENOTDIR EISDIR ELOOP EIO".split()
)
"""What the system says where a file of ours has lost its mode or its type."""


class UpToDate:
    """doit's up-to-date object. It calls `check` and never raises.

    Its repr is the reason, which `doit info TASK` prints.
    """

    def __init__(self, check: Check) -> None:
        self._check = check
        self.reason: str | None = None

    def __call__(self) -> bool:
        try:
            self.reason = self._check()
        except Failure as failure:
            self.reason = str(failure)
        except Exception as error:
            # Damaged files make the step run again.
            self.reason = redact(f"{type(error).__name__}: {error}")
        return self.reason is None

    def __repr__(self) -> str:
        return self.reason or "up to date"


def step(
    run: Run,
    name: str,
    doc: str,
    *,
    check: Check,
    action: Action,
    log: Path | None = None,
    after: Iterable[str] = (),
    first: bool = False,
    preview: Preview | None = None,
    garbage: Callable[[], Iterable[Path]] | None = None,
) -> Task:
    """The task `name`, or the sub-task of a name with a colon ("pm2:gpu0").

    `action` gets the path of its empty log, by default the one named after the task. A Failure
    ends the task with one line; any other exception is a bug and goes to the log with its
    traceback. In a plan `preview` replaces `action`; without one, only the check's reason is
    shown. In a run that includes a task marked `first`, all others wait for it. `garbage` lists
    what `doit clean` may remove.
    """
    basename, _, sub = name.partition(":")
    up_to_date = UpToDate(check)
    previewed: list[str] = []
    log = log or run.layout.log(name)
    if run.overlay:
        action = partial(_preview, preview, previewed)
    return {
        "basename": basename,
        **({"name": sub} if sub else {}),
        "doc": doc,
        "actions": [(_perform, [run, name, action, log])],
        "uptodate": [up_to_date],
        "task_dep": list(after),
        "meta": {
            "garbage": garbage,
            "check": up_to_date,
            "previewed": previewed,
            "log": log,
            "first": first,
        },
        "verbosity": 2,
        "io": {"capture": False},
    }


def group(name: str, doc: str, after: Iterable[str] = ()) -> Task:
    """The parent of sub-tasks, with the line that `doit list` shows."""
    return {"basename": name, "name": None, "doc": doc, "task_dep": list(after)}


def _preview(preview: Preview | None, previewed: list[str], log: Path) -> None:
    previewed += preview(log) if preview else ()


class StepFailed(TaskFailed):  # type: ignore[misc]
    """How a step tells doit of its failure."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.with_log())
        self.failure = failure


def read_failure(fail: BaseFail) -> Failure:
    """Why a task failed, as its step or doit itself says."""
    return fail.failure if isinstance(fail, StepFailed) else Failure(fail.get_msg().strip())


def of_file(run: Run, error: OSError) -> Failure:
    """What the system says of a file, and the command that mends ours."""
    where = error.filename or "no file named"
    ours = Path(str(where)).is_relative_to(run.layout.machine) and error.errno in MENDABLE
    advice = f"; {PROGRAM} repair mends what it can below .machine" if ours else ""
    return Failure(f"{error.strerror or error}: {where}{advice}")


def _perform(run: Run, name: str, action: Action, log: Path) -> StepFailed | None:
    try:
        files.empty_log(log)
    except OSError:
        # The action meets the same obstacle and explains it.
        log = Path(os.devnull)
    try:
        with run.board.step(name):
            action(log)
    except Failure as failure:
        failure.log = failure.log or (log if log.stat().st_size else None)
        return StepFailed(failure)
    except OSError as error:
        return StepFailed(of_file(run, error))
    except Exception as error:
        # GitPython's errors repeat the command and all of git's output.
        with contextlib.suppress(OSError), log.open("a") as file:
            file.write(redact(traceback.format_exc()))
        return StepFailed(Failure(f"unexpected {type(error).__name__}: {error}", log))
    return None
