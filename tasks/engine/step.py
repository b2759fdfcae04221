"""Turn an intent — a check that says whether it holds, an action that makes it so — into a task.

No step has a `file_dep` or a saved value: whether it is up to date is read from the disk
(receipts, commits, links, processes) at every run, so doit's database holds nothing and
lives in memory.
"""

from __future__ import annotations

import contextlib
import os
import traceback
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from doit.exceptions import TaskFailed

from ..host.system.failure import Failure
from ..host.system.redaction import redact
from .run import Run

Task = dict[str, Any]
Check = Callable[[], str | None]
Action = Callable[[Path], None]
Preview = Callable[[Path], Iterable[str]]
"""What an action would do, in lines; writes what later steps read into the overlay alone."""


class UpToDate:
    """doit's up-to-date object: calls `check`, which answers None or why it doesn't hold.

    Its repr is that reason, so `doit info TASK` explains itself. It never raises.
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
            # Whatever is damaged, the step runs again.
            self.reason = redact(f"{type(error).__name__}: {error}")
        return self.reason is None

    def __repr__(self) -> str:
        return self.reason or "holds"


def step(
    run: Run,
    name: str,
    doc: str,
    *,
    check: Check,
    action: Action,
    log: Path | None = None,
    after: Iterable[str] = (),
    preview: Preview | None = None,
    garbage: Callable[[], Iterable[Path]] | None = None,
) -> Task:
    """A sub-task (`name` "gpu0") or, with a name ending in `:`, a whole task ("source:").

    `action` gets the path of its log, emptied before, by default the one named after the task. A
    Failure that it raises ends the task with one line; any other exception is a bug and goes to
    the log with its traceback. In a plan `preview` takes its place; a step without it is previewed
    by its check alone. `garbage` lists what `doit clean` may remove of it.
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
        "actions": [(_perform, [action, log])],
        "uptodate": [up_to_date],
        "task_dep": list(after),
        "meta": {"garbage": garbage, "check": up_to_date, "previewed": previewed, "log": log},
        "verbosity": 2,
        "io": {"capture": False},
    }


def group(name: str, doc: str, after: Iterable[str] = ()) -> Task:
    """The task that holds sub-tasks together and has the doc line of `doit list`."""
    return {"basename": name, "name": None, "doc": doc, "task_dep": list(after)}


def _preview(preview: Preview | None, previewed: list[str], log: Path) -> None:
    previewed += preview(log) if preview else ()


def _perform(action: Callable[[Path], None], log: Path) -> TaskFailed | None:
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_bytes(b"")
    except OSError:
        # The action meets the same obstacle and has the words for it.
        log = Path(os.devnull)
    try:
        action(log)
    except Failure as failure:
        where = failure.log or (log if log.stat().st_size else None)
        return TaskFailed(f"{failure}" + (f"\n  log: {where}" if where else ""))
    except OSError as error:
        return TaskFailed(f"{error.strerror or error}: {error.filename or 'while it worked'}")
    except Exception as error:
        # GitPython's errors repeat the command and all that git said.
        with contextlib.suppress(OSError), log.open("a") as file:
            file.write(redact(traceback.format_exc()))
        return TaskFailed(redact(f"unexpected {type(error).__name__}: {error}") + f"\n  log: {log}")
    return None
