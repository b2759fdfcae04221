"""The journal of a run, which `doit status` and the health server read while it runs.

It is written at most every EVERY seconds between the first and the last entry, and not at all
when no task is executed. If it can't be written, the run continues without it. A plan and
`doit update`, which don't change the machine, have none.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..host.system import files, process
from ..host.system.failure import Failure
from ..host.system.redaction import redact
from ..host.system.run_journal import Notes, RunState, Task, read_times, until
from ..spec.layout import Layout
from .order import closure

EVERY = 0.25
BEAT = 2.0
"""Seconds after which it is written again, even if nothing changed."""


class Journal:
    """Writes the journal of one run. Every method but `begin` may be called from any thread.

    Before `begin` and after `end` nothing is written.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._file = layout.progress("run")
        self._lock = threading.RLock()
        self._changed = threading.Event()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._tasks: dict[str, Task] = {}
        self._started: dict[str, float] = {}
        self._open = False
        self.problem: str | None = None
        """Why it could not be written the last time."""

    def begin(self, tasks: Mapping[str, Any], selected: Sequence[str]) -> None:
        """A run of the `selected` ones of doit's `tasks` begins, and of all that they need."""
        if self._layout.overlay:
            return
        self._known = frozenset(tasks)
        self._tasks = {
            name: Task(name, tasks[name].doc or "", tuple(dict.fromkeys(_needs(tasks, name))))
            for name in closure(tasks, selected)
        }
        self._notes = Notes(
            os.getpid(), process.run_id(), " ".join(selected), time.time(), 0.0, "running", ()
        )
        self._open = True
        self._write()

    def change(self, name: str, **changes: Any) -> None:
        """Change a task's fields; groups, which do nothing, aren't in the journal."""
        with self._lock:
            if task := self._tasks.get(name):
                self._tasks[name] = replace(task, **changes)
                self._changed.set()

    def tasks(self) -> tuple[Task, ...]:
        """The tasks of this run as they are now."""
        now = time.time()
        with self._lock:
            return tuple(until(task, now) for task in self._tasks.values())

    def progress(self, name: str, percent: float | None, detail: str) -> None:
        """How far a task is; None: unknown."""
        self.change(name, percent=percent, detail=redact(detail))

    def start(self, name: str, log: Path) -> None:
        self._started[name] = time.monotonic()
        self.change(name, state="running", began=time.time(), log=str(log))
        with self._lock:
            if self._thread is None and self._tasks:
                self._thread = threading.Thread(target=self._keep, daemon=True)
                self._thread.start()

    def done(self, name: str) -> None:
        self.change(name, state="done", seconds=self._took(name), percent=None, detail="")

    def fail(self, name: str, failure: Failure) -> None:
        log = {"log": str(failure.log)} if failure.log else {}
        took = self._took(name)
        self.change(name, state="failed", seconds=took, detail="", reason=str(failure), **log)
        if self._open:
            self._write()

    def _took(self, name: str) -> float:
        begin = self._started.pop(name, None)
        return time.monotonic() - begin if begin else 0.0

    def end(self, state: RunState) -> None:
        """Write the final state, and how long each task took, for the estimates of later runs."""
        if not self._open:
            return
        self._open = False
        with self._lock:
            if state == "succeeded" and any(task.open for task in self._tasks.values()):
                state = "failed"
            self._notes = replace(self._notes, state=state)
            self._write()
            self._ended.set()
            self._changed.set()
        self._keep_times()

    def _keep_times(self) -> None:
        took = {task.name: task.seconds for task in self._tasks.values() if task.state == "done"}
        if took:
            times = {**read_times(self._layout), **took}
            # Tasks that left machine.yaml are forgotten.
            times = {name: seconds for name, seconds in times.items() if name in self._known}
            with contextlib.suppress(OSError):
                files.write_receipt(self._layout.progress("times"), times)

    def _keep(self) -> None:
        while not self._ended.wait(EVERY):
            # Also when nothing changed: the last write tells when a killed run ended.
            self._changed.wait(BEAT)
            self._write()

    def _write(self) -> None:
        with self._lock:
            if self._ended.is_set():
                return
            self._changed.clear()
            notes = replace(self._notes, noted=time.time())
            tasks = [vars(task) for task in self._tasks.values()]
            text = json.dumps({**vars(notes), "tasks": tasks})
            self.problem = None
            try:
                files.write_text(self._file, text, durable=False)
            except OSError as error:
                self.problem = f"{self._file} can't be written: {error.strerror}"


def _needs(tasks: Mapping[str, Any], name: str) -> Iterator[str]:
    """What a task waits for; of a group, its members."""
    for other in tasks[name].task_dep:
        if tasks[other].actions:
            yield other
        else:
            yield from _needs(tasks, other)
