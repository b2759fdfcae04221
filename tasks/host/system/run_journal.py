"""The journal of a run: what `doit` writes down while it works, and how it stands, for readers.

`progress/run.json` is of the run that is on or of the last one, `progress/times.json` has the
seconds that each task took when it was last executed. Times are seconds since the epoch.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

from pydantic import TypeAdapter

from ...spec.layout import Layout
from . import files, process

TaskState = Literal["waiting", "running", "done", "up to date", "failed", "held back"]
RunState = Literal["running", "succeeded", "failed", "interrupted"]


@dataclass(frozen=True)
class Task:
    """One task of a run; `after` are the tasks that it waits for."""

    name: str
    doc: str
    after: tuple[str, ...] = ()
    state: TaskState = "waiting"
    began: float | None = None
    seconds: float | None = None
    """How long it took, or has taken until now."""
    percent: float | None = None
    """Of its work, where it says so."""
    detail: str = ""
    """What it does just now."""
    reason: str = ""
    """Why it failed."""
    log: str | None = None

    @property
    def open(self) -> bool:
        return self.state in ("waiting", "running")


@dataclass(frozen=True)
class Notes:
    """What stands in the file. Of a run that was killed it says that it is running."""

    pid: int
    run: str
    """process.RUN_ID"""
    command: str
    began: float
    noted: float
    """When this was written."""
    state: RunState
    tasks: tuple[Task, ...]


@dataclass(frozen=True)
class Journal:
    """The run that is on, or the last one."""

    pid: int
    command: str
    """What was asked for, such as `up`."""
    state: RunState
    began: float
    seconds: float
    seconds_left: float | None
    """While it is on, an estimate; None: unknown."""
    percent: float | None
    tasks: tuple[Task, ...]

    @property
    def done(self) -> int:
        """How many tasks hold: were done, or found up to date."""
        return sum(task.state in ("done", "up to date") for task in self.tasks)

    @property
    def total(self) -> int:
        return len(self.tasks)

    def of(self, state: TaskState) -> list[Task]:
        return [task for task in self.tasks if task.state == state]


def read(layout: Layout) -> Journal | None:
    """The run that is on or the last one, as it stands; None: none is known. Never raises."""
    notes = _read(layout)
    if notes and notes.state == "running" and not process.is_run(notes.run):
        # It may have come to its end since it was looked at.
        notes = _read(layout)
        if notes and notes.state == "running" and not process.is_run(notes.run):
            notes = replace(notes, state="interrupted")
    if notes is None:
        return None
    on = notes.state == "running"
    now = max(time.time(), notes.began) if on else notes.noted
    tasks = tuple(_until(task, now) for task in notes.tasks)
    left = seconds_left(tasks, read_times(layout)) if on else None
    took = now - notes.began
    return Journal(
        pid=notes.pid,
        command=notes.command,
        state=notes.state,
        began=notes.began,
        seconds=round(took, 1),
        seconds_left=left,
        percent=_rounded(_share(tasks) if left is None else 100 * took / (took + left or 1.0)),
        tasks=tasks,
    )


def is_on(layout: Layout) -> bool:
    """Whether a run is in progress, or was killed before it wrote its end. Never raises."""
    notes = _read(layout)
    return notes is not None and notes.state == "running"


def _rounded(percent: float | None) -> float | None:
    return None if percent is None else round(percent, 1)


def read_times(layout: Layout) -> dict[str, float]:
    """Seconds of each task's last execution."""
    told = files.read_receipt(layout.progress("times"))
    return {name: float(took) for name, took in told.items() if isinstance(took, (int, float))}


def seconds_left(tasks: Iterable[Task], times: Mapping[str, float]) -> float | None:
    """What the longest chain of open tasks takes: by their percents, else as the last time.

    What was up to date last time may be again, so this is rather too much. None when nothing is
    known of those that wait, or, where none waits, of those that run.
    """
    open_ = {task.name: task for task in tasks if task.open}
    alone = {name: _left(task, times) for name, task in open_.items()}
    waiting = [name for name, task in open_.items() if task.state == "waiting"]
    if all(alone[name] is None for name in waiting or open_):
        return None
    until: dict[str, float] = {}

    def reach(name: str) -> float:
        if name not in until:
            # A chain that bites its tail is no chain.
            until[name] = 0.0
            before = max((reach(each) for each in open_[name].after if each in open_), default=0.0)
            until[name] = before + (alone[name] or 0.0)
        return until[name]

    return max(map(reach, open_))


def _left(task: Task, times: Mapping[str, float]) -> float | None:
    """Of one task that is open, by itself."""
    passed = task.seconds or 0.0
    if task.percent is not None and task.percent >= 1:
        return passed * (100 - min(task.percent, 100)) / task.percent
    known = times.get(task.name)
    return None if known is None else max(0.0, known - passed)


def _share(tasks: Sequence[Task]) -> float | None:
    """How many of the tasks are behind us, in percent; of one that runs, its part."""
    done = sum(
        100 if task.state in ("done", "up to date") else task.percent or 0.0 for task in tasks
    )
    return done / len(tasks) if tasks else None


def _until(task: Task, now: float) -> Task:
    if task.state != "running" or task.began is None:
        return task
    return replace(task, seconds=max(0.0, now - task.began))


def _read(layout: Layout) -> Notes | None:
    try:
        return _notes().validate_json(files.read_bytes(layout.progress("run")))
    except (OSError, ValueError):
        return None


@cache
def _notes() -> TypeAdapter[Notes]:
    return TypeAdapter(Notes)
