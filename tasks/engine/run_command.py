"""doit's `run` command for a machine: holds the run lock, keeps the journal, ends children."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import Any, TextIO

from doit import cmd_run
from doit.exceptions import BaseFail, InvalidCommand, UnmetDependency

from ..host.system import process
from ..host.system.failure import Failure
from ..host.system.program_files import PROGRAM
from ..host.system.run_journal import RunState
from ..host.system.run_lock import RunLock, Taken
from . import command_line, signals
from .configuration import load_run, loaded_run, set_factory
from .exit_codes import ExitCode
from .order import put_first
from .outputs import GuardedCommand
from .reporter import Reporter
from .run import Run
from .step import read_failure


class RunCommand(GuardedCommand, cmd_run.Run):  # type: ignore[misc]
    """`doit` and `doit run`. Plan and update are subclasses."""

    doc_purpose = "run tasks with what they need; up, unless others are named"
    reporter: type[Reporter] = Reporter

    def execute(self, params: Any, args: list[str]) -> Any:
        with ExitStack() as stack:
            set_factory(lambda: stack.enter_context(self.prepared(load_run())))
            try:
                return super().execute(params, args)
            except InvalidCommand as error:
                if error.not_found is None:
                    raise
                tasks = [task.name for task in self.task_list]
                raise command_line.unknown(error.not_found, tasks, self.loader.cmd_names) from None

    @contextmanager
    def prepared(self, run: Run) -> Iterator[Run]:
        """Adapt the run to this command. May raise InvalidCommand."""
        yield run

    def make_reporter(self, out: TextIO, run: Run) -> Reporter:
        return self.reporter(out, run)

    # doit reads the options' names from the signature.
    @wraps(cmd_run.Run._execute)
    def _execute(self, outfile: Any, reporter: Any = None, **options: Any) -> Any:
        # doit's default is what standard output was when doit was imported.
        outfile = outfile if isinstance(outfile, str) else sys.stdout
        run = loaded_run()
        if run is None:
            return super()._execute(outfile, reporter=reporter, **options)
        if run.machine.lock_damage:
            return self.failed(Failure(run.machine.lock_damage), ExitCode.REFUSED)
        with ExitStack() as stack:
            if isinstance(outfile, str):
                outfile = stack.enter_context(Path(outfile).open("w", encoding="utf-8"))
            if isinstance(reporter, str):
                reporter = self.reporters[reporter](outfile, options)
            else:
                reporter = self.make_reporter(outfile, run)
            try:
                return super()._execute(outfile, reporter=Recorder(run, reporter), **options)
            except (Failure, Taken) as refusal:
                return self.failed(Failure(str(refusal)), ExitCode.REFUSED)


class Recorder:
    """doit's reporter interface: records each event, then passes it on to the real reporter.

    From `initialize` to `complete_run` it holds the run lock and keeps the journal; then it ends
    child processes. A plan takes no lock, since it changes nothing.
    """

    def __init__(self, run: Run, reporter: Any) -> None:
        self._run, self._reporter = run, reporter
        self._lock = None if run.is_plan else RunLock(run.machine.workspace)
        self._running: dict[str, None] = {}
        self._begun = self._failed = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reporter, name)

    def initialize(self, tasks: Mapping[str, Any], selected: Sequence[str]) -> None:
        """Raises Taken when another run is in progress."""
        if self._lock:
            self._lock.take(" ".join(selected))
        self._begun = True
        put_first(tasks, selected)
        self._run.journal.begin(tasks, selected)
        self._reporter.initialize(tasks, selected)

    def complete_run(self) -> None:
        # doit calls it even when `initialize` raised.
        if not self._begun:
            return
        if problem := self._run.journal.problem:
            self._run.warn(f"{PROGRAM} status can't show this run: {problem}")
        try:
            self._reporter.complete_run()
        finally:
            process.end_children()
            # The journal first: once the lock is free, another run may write it.
            self._run.journal.end(self._state())
            if self._lock:
                self._lock.release()

    def _state(self) -> RunState:
        if signals.received():
            return "interrupted"
        return "failed" if self._failed else "succeeded"

    def execute_task(self, task: Any) -> None:
        if task.actions:
            self._running[task.name] = None
            if self._lock:
                # On a full disk the lock is held all the same.
                with suppress(OSError):
                    self._lock.note(" ".join(self._running))
            self._run.journal.start(task.name, task.meta["log"])
        self._reporter.execute_task(task)

    def add_success(self, task: Any) -> None:
        self._running.pop(task.name, None)
        self._run.journal.done(task.name)
        self._reporter.add_success(task)

    def add_failure(self, task: Any, fail: BaseFail) -> None:
        self._running.pop(task.name, None)
        self._failed = True
        if isinstance(fail, UnmetDependency):
            self._run.journal.change(task.name, state="held back")
        else:
            self._run.journal.fail(task.name, read_failure(fail))
        self._reporter.add_failure(task, fail)

    def skip_uptodate(self, task: Any) -> None:
        self._run.journal.change(task.name, state="up to date")
        self._reporter.skip_uptodate(task)

    def cleanup_error(self, exception: BaseFail) -> None:
        self._failed = True
        self._reporter.cleanup_error(exception)

    def runtime_error(self, message: str) -> None:
        self._failed = True
        self._reporter.runtime_error(message)
