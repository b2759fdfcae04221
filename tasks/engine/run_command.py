"""doit's `run` command for a machine: holds the run lock, keeps the journal, ends children."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any

from doit import cmd_run
from doit.control import TaskControl
from doit.exceptions import BaseFail, UnmetDependency
from doit.runner import ERROR

from ..host.system import process
from ..host.system.failure import Failure
from ..host.system.run_journal import RunState
from ..host.system.run_lock import RunLock, Taken
from . import signals
from .configuration import load_run, loaded_run, set_factory
from .reporter import Reporter
from .run import Run


class RunCommand(cmd_run.Run):  # type: ignore[misc]
    """`doit` and `doit run`. Plan and update are subclasses."""

    reporter: type[Reporter] = Reporter

    def execute(self, params: Any, args: list[str]) -> Any:
        with ExitStack() as stack:
            set_factory(lambda: stack.enter_context(self.prepared(load_run())))
            return super().execute(params, args)

    @contextmanager
    def prepared(self, run: Run) -> Iterator[Run]:
        """Adapt the run to this command. May raise InvalidCommand."""
        yield run

    # doit reads the options' names from the signature.
    @wraps(cmd_run.Run._execute)
    def _execute(self, outfile: Any, reporter: Any = None, **options: Any) -> Any:
        run = loaded_run()
        if run is None:
            return super()._execute(outfile, reporter=reporter, **options)
        if reporter is Reporter:
            reporter = self.reporter(outfile, run)
        elif isinstance(reporter, str):
            reporter = self.reporters[reporter](outfile, {})
        control = TaskControl(self.task_list)
        control.process(self.sel_tasks)
        # doit selects again, and stops at the first task whose options are already parsed.
        for task in self.task_list:
            task.options = None
        try:
            with recording(run, control, reporter) as recorder:
                return super()._execute(outfile, reporter=recorder, **options)
        except (Taken, Failure) as refused:
            print(refused, file=sys.stderr)
            return ERROR


@contextmanager
def recording(run: Run, control: TaskControl, reporter: Any) -> Iterator[Recorder]:
    """Hold the run lock and keep the journal while tasks run; then end their child processes.

    A plan takes no lock, since it changes nothing. Raises Taken when another run is in progress,
    Failure when machine.lock can't be read.
    """
    if run.machine.lock_damage:
        raise Failure(run.machine.lock_damage)
    lock = None if run.is_plan else RunLock(run.machine.workspace)
    if lock:
        lock.take(" ".join(control.selected_tasks))
    recorder = Recorder(run, lock, reporter)
    try:
        run.journal.begin(control.tasks, control.selected_tasks)
        yield recorder
    finally:
        process.end_children()
        # The journal first: once the lock is free, another run may write it.
        run.journal.end(recorder.state)
        if lock:
            lock.release()


class Recorder:
    """doit's reporter interface: records each event, then passes it on to the real reporter."""

    def __init__(self, run: Run, lock: RunLock | None, reporter: Any) -> None:
        self._run, self._lock, self._reporter = run, lock, reporter
        self._running: dict[str, None] = {}
        self._failed = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reporter, name)

    @property
    def state(self) -> RunState:
        if signals.received():
            return "interrupted"
        return "failed" if self._failed else "succeeded"

    def execute_task(self, task: Any) -> None:
        if task.actions:
            self._running[task.name] = None
            if self._lock:
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
            self._run.journal.fail(task.name, fail.get_msg().strip())
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
