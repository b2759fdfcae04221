"""The output of a run: one line per executed task, all failures at the end."""

from __future__ import annotations

import errno
import os
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any, TextIO

from doit import get_var
from doit.exceptions import BaseFail, UnmetDependency
from doit.reporter import ZeroReporter

from ..host.system.failure import Failure
from ..host.system.program_files import PROGRAM
from ..host.system.run_journal import read_times, seconds_left
from ..host.system.units import duration
from . import outputs, signals
from .progress_board import tell_a_person
from .run import Run
from .step import read_failure


class Reporter(ZeroReporter):  # type: ignore[misc]
    """doit's reporter; what has no method here prints nothing."""

    desc = "one line per executed task"
    verb = "done"

    def __init__(self, outstream: TextIO, run: Run) -> None:
        self.out = outstream
        self.run = run
        self.started: dict[str, float] = {}
        self.begin = time.monotonic()
        self.executed = 0
        self.up_to_date = 0
        self.failures: list[tuple[str, Failure]] = []
        self.held_back = 0
        self.errors: list[str] = []
        run.messages.show = lambda text: self.write(f"  {text}\n")
        run.board.out = lambda: self.out
        run.board.footer = self._footer
        run.board.tell = lambda line: self.write(f"  {line}\n")
        self.colours = outstream.isatty() and "NO_COLOR" not in os.environ

    def initialize(self, tasks: Mapping[str, Any], selected: Sequence[str]) -> None:
        self.selected = list(selected)

    def execute_task(self, task: Any) -> None:
        if task.actions:
            self.started[task.name] = time.monotonic()
            self.run.board.start(task.name, task.doc or "", self._usual.get(task.name))

    def add_success(self, task: Any) -> None:
        if task.actions:
            self.run.board.finish(task.name)
            self.executed += 1
            for line in task.meta["previewed"]:
                self.run.tell(line)
            self.write(f"{self._mark('✓', 32)} {task.name:<32}{self._seconds(task):>8.1f} s\n")

    def add_failure(self, task: Any, fail: BaseFail) -> None:
        if isinstance(fail, UnmetDependency):
            self.held_back += 1
            return
        self.run.board.finish(task.name)
        self.write(f"{self._mark('✗', 31)} {task.name:<32}{self._seconds(task):>8.1f} s\n")
        self.failures.append((task.name, read_failure(fail)))

    def skip_uptodate(self, task: Any) -> None:
        if task.actions:
            self.up_to_date += 1

    def skip_ignore(self, task: Any) -> None:
        self.write(f"- {task.name} is ignored\n")

    def cleanup_error(self, exception: BaseFail) -> None:
        self.errors.append(exception.get_msg())

    def runtime_error(self, msg: str) -> None:
        self.errors.append(msg)

    def complete_run(self) -> None:
        self.run.board.close()
        for text in self.run.messages.news:
            self.write(f"  {text}\n")
        for text in self.run.messages.warnings:
            self.write(f"{self._mark('!', 33)} {text}\n")
        for name, failure in self.failures:
            self.write(f"{self._mark('✗', 31)} {name}: {failure.with_log()}\n")
        if self.held_back:
            steps = "step that needs" if self.held_back == 1 else "steps that need"
            self.write(f"  skipped {self.held_back} {steps} it\n")
        for message in self.errors:
            self.write(f"{self._mark('✗', 31)} {message}\n")
        if signals.received():
            return
        plural = "" if self.executed == 1 else "s"
        did = f"{self.executed} task{plural} {self.verb}" if self.executed else "nothing to do"
        if self.failures or self.errors:
            did = f"{len(self.failures) + len(self.errors)} failed, {self.executed} {self.verb}"
        self.write(f"{did}, {self.up_to_date} up to date{self._ending()}\n")
        if advice := self._advice():
            self.write(f"next: {advice}\n")

    @cached_property
    def _usual(self) -> dict[str, float]:
        return read_times(self.run.layout)

    def _footer(self) -> str:
        """How far the run is."""
        tasks = self.run.journal.tasks()
        if not tasks:
            return ""
        done = sum(not task.open for task in tasks)
        left = seconds_left(tasks, self._usual)
        about = "" if left is None else f", about {duration(left)} left"
        elapsed = duration(time.monotonic() - self.begin)
        return f"{done} of {len(tasks)} steps, {elapsed}{about}"

    def _advice(self) -> str:
        """The next useful command."""
        if self.failures or self.errors:
            same = again(*self.selected)
            return f"mend that, then {same} again; {again('status')} shows what runs"
        if self.run.updates is not None:
            return f"{again('plan')} shows what that changes, {again()} applies it"
        if self.selected != ["up"]:
            return again()
        if self.executed and self.run.instances:
            return f"{again('smoke')} sends a job through every instance"
        return again("status")

    def _ending(self) -> str:
        return f" ({time.monotonic() - self.begin:.1f} s)"

    def write(self, text: str) -> None:
        try:
            if self.run.board.show(text):
                return
            self.out.write(text)
            self.out.flush()
        except OSError as error:
            if self.run.is_plan:
                raise
            outputs.discard(self.out)
            if error.errno != errno.EPIPE:
                text = f"the output can't be written ({error.strerror}): the run continues"
                with suppress(OSError):
                    print(text, file=sys.stderr)

    def _seconds(self, task: Any) -> float:
        begin = self.started.pop(task.name, None)
        return time.monotonic() - begin if begin else 0.0

    def _mark(self, sign: str, colour: int) -> str:
        return f"\x1b[{colour}m{sign}\x1b[0m" if self.colours else sign


def again(*words: str) -> str:
    """A command line of this program, for the same machine file."""
    machine = get_var("machine")
    named = [f"machine={machine}"] if machine else []
    words = () if words == ("up",) else words
    return shlex.join([PROGRAM, *named, *words])


class PlanReporter(Reporter):
    """Prints what a run would do, and why."""

    verb = "to do"

    def __init__(self, outstream: TextIO, run: Run, *, silent: bool = False) -> None:
        super().__init__(outstream, run)
        self.silent = silent
        """Whether it only keeps what it would print."""
        if not silent:
            run.board.tell = tell_a_person
        self.planned: list[tuple[str, list[str]]] = []
        """Task → the reason why it has work to do, and what it would do."""

    def write(self, text: str) -> None:
        if not self.silent:
            super().write(text)

    def add_success(self, task: Any) -> None:
        if task.actions:
            self.run.board.finish(task.name)
            self.executed += 1
            lines = [task.meta["check"].reason, *task.meta["previewed"]]
            self.planned.append((task.name, lines))
            self.write(f"{self._mark('~', 33)} {task.name}: {lines[0]}\n")
            self.write("".join(f"    {line}\n" for line in lines[1:]))

    def add_failure(self, task: Any, fail: BaseFail) -> None:
        if isinstance(fail, UnmetDependency):
            self.held_back += 1
        else:
            self.run.board.finish(task.name)
            # The log is in the plan's temporary folder.
            self.failures.append((task.name, Failure(str(read_failure(fail)))))

    def _advice(self) -> str:
        if self.failures or self.errors:
            return f"mend that, then {again('plan')} again"
        return f"{again(*self.selected)} does that" if self.executed else ""

    def _ending(self) -> str:
        return "; nothing was changed"
