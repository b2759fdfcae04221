"""The output of a run: one line per executed task, all failures at the end."""

from __future__ import annotations

import errno
import os
import sys
import time
from contextlib import suppress
from typing import Any, TextIO

from doit.exceptions import BaseFail, UnmetDependency
from doit.reporter import ZeroReporter

from ..host.system.failure import Failure
from . import outputs, signals
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
        self.colours = outstream.isatty() and "NO_COLOR" not in os.environ

    def execute_task(self, task: Any) -> None:
        if task.actions:
            self.started[task.name] = time.monotonic()
            if self.colours:
                self.write(f"\x1b[2m… {task.name}\x1b[0m\n")

    def add_success(self, task: Any) -> None:
        if task.actions:
            self.executed += 1
            for line in task.meta["previewed"]:
                self.run.tell(line)
            self.write(f"{self._mark('✓', 32)} {task.name:<32}{self._seconds(task):>8.1f} s\n")

    def add_failure(self, task: Any, fail: BaseFail) -> None:
        if isinstance(fail, UnmetDependency):
            self.held_back += 1
            return
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
        if not self.failures and not self.errors and not signals.received():
            plural = "" if self.executed == 1 else "s"
            did = f"{self.executed} task{plural} {self.verb}" if self.executed else "nothing to do"
            self.write(f"{did}, {self.up_to_date} up to date{self._ending()}\n")

    def _ending(self) -> str:
        return f" ({time.monotonic() - self.begin:.1f} s)"

    def write(self, text: str) -> None:
        if screen := self.run.board.console:
            from rich.text import Text

            screen.print(Text.from_ansi(text), end="")
            return
        try:
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


class PlanReporter(Reporter):
    """Prints what a run would do, and why."""

    verb = "to do"

    def execute_task(self, task: Any) -> None:
        pass

    def add_success(self, task: Any) -> None:
        if task.actions:
            self.executed += 1
            lines = [task.meta["check"].reason, *task.meta["previewed"]]
            self.write(f"{self._mark('~', 33)} {task.name}: {lines[0]}\n")
            self.write("".join(f"    {line}\n" for line in lines[1:]))

    def add_failure(self, task: Any, fail: BaseFail) -> None:
        if isinstance(fail, UnmetDependency):
            self.held_back += 1
        else:
            # The log is in the plan's temporary folder.
            self.failures.append((task.name, Failure(str(read_failure(fail)))))

    def _ending(self) -> str:
        return "; nothing was changed"
