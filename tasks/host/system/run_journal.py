"""The journal of a run: what `doit` writes down while it works, and how it stands, for readers.

`progress/run.json` describes the run in progress or the last one, `progress/times.json` has the
duration in seconds of each task's last execution. Times are seconds since the epoch.
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
    """One task of a run; `after`: the tasks that it waits for."""

    name: str
    doc: str
    after: tuple[str, ...] = ()
    state: TaskState = "waiting"
    began: float | None = None
    seconds: float | None = None
    """Its duration so far."""
    percent: float | None = None
    """Its progress, if it reports any."""
    detail: str = ""
    """Its current work."""
    reason: str = ""
    """Why it failed."""
    log: str | None = None

    @property
    def open(self) -> bool:
        return self.state in ("waiting", "running")


@dataclass(frozen=True)
class Notes:
    """The file's content. After a run was killed, its state is still "running"."""

    pid: int
    run: str
    """process.run_id()"""
    command: str
    began: float
    noted: float
    """When this was written."""
    state: RunState
    tasks: tuple[Task, ...]


@dataclass(frozen=True)
class Journal:
    """The run in progress, or the last one."""

    pid: int
    command: str
    """The command, such as `up`."""
    state: RunState
    began: float
    seconds: float
    seconds_left: float | None
    """An estimate while it is in progress; None: unknown."""
    percent: float | None
    tasks: tuple[Task, ...]

    @property
    def done(self) -> int:
        """The number of tasks that were executed or found up to date."""
        return sum(task.state in ("done", "up to date") for task in self.tasks)

    @property
    def total(self) -> int:
        return len(self.tasks)

    @property
    def is_on(self) -> bool:
        """Whether this run is in progress."""
        return self.state == "running"

    def awaits(self, *names: str) -> bool:
        """Whether this run still has one of these tasks to do; `doit build` starts nothing."""
        return self.is_on and any(task.open and task.name in names for task in self.tasks)

    def of(self, state: TaskState) -> list[Task]:
        return [task for task in self.tasks if task.state == state]


def read(layout: Layout) -> Journal | None:
    """The run in progress or the last one; None: there is none. Never raises."""
    notes = _read(layout)
    if notes and notes.state == "running" and not process.is_run(notes.run):
        # It may have ended since the file was read.
        notes = _read(layout)
        if notes and notes.state == "running" and not process.is_run(notes.run):
            notes = replace(notes, state="interrupted")
    if notes is None:
        return None
    is_running = notes.state == "running"
    now = max(time.time(), notes.began) if is_running else notes.noted
    tasks = tuple(until(task, now) for task in notes.tasks)
    left = seconds_left(tasks, read_times(layout)) if is_running else None
    took = now - notes.began
    percent = _share(tasks) if left is None else 100 * took / (took + left or 1.0)
    return Journal(
        pid=notes.pid,
        command=notes.command,
        state=notes.state,
        began=notes.began,
        seconds=round(took, 1),
        seconds_left=left,
        percent=None if percent is None else round(percent, 1),
        tasks=tasks,
    )


def is_on(layout: Layout) -> bool:
    """Whether a run is in progress, or was killed before it wrote its end. Never raises."""
    notes = _read(layout)
    return notes is not None and notes.state == "running"


def read_times(layout: Layout) -> dict[str, float]:
    """Seconds of each task's last execution."""
    times = files.read_receipt(layout.progress("times"))
    return {name: float(took) for name, took in times.items() if isinstance(took, (int, float))}


def seconds_left(tasks: Iterable[Task], times: Mapping[str, float]) -> float | None:
    """The duration of the longest chain of open tasks, by their progress or their last duration.

    It is rather too long, since tasks may turn out to be up to date. None: nothing is known of the
    waiting tasks or, if none waits, of the running ones.
    """
    open_ = {task.name: task for task in tasks if task.open}
    alone = {name: _left(task, times) for name, task in open_.items()}
    waiting = [name for name, task in open_.items() if task.state == "waiting"]
    if all(alone[name] is None for name in waiting or open_):
        return None
    until: dict[str, float] = {}

    def reach(name: str) -> float:
        if name not in until:
            # Ends the recursion in a cycle.
            until[name] = 0.0
            before = max((reach(each) for each in open_[name].after if each in open_), default=0.0)
            until[name] = before + (alone[name] or 0.0)
        return until[name]

    return max(map(reach, open_))


def _left(task: Task, times: Mapping[str, float]) -> float | None:
    """Seconds left of one open task."""
    passed = task.seconds or 0.0
    if task.percent is not None and task.percent >= 1:
        return passed * (100 - min(task.percent, 100)) / task.percent
    known = times.get(task.name)
    return None if known is None else max(0.0, known - passed)


def _share(tasks: Sequence[Task]) -> float | None:
    """The share of work that is done, in percent; running tasks count in part."""
    done = sum(
        100 if task.state in ("done", "up to date") else task.percent or 0.0 for task in tasks
    )
    return done / len(tasks) if tasks else None


def until(task: Task, now: float) -> Task:
    """A task with its duration until `now`, in seconds since the epoch, while it runs."""
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
