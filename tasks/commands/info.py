"""doit info: a task, and whether it is up to date."""

from __future__ import annotations

from doit import cmd_info
from doit.exceptions import InvalidCommand

from ..engine import command_line
from ..engine.exit_codes import ExitCode
from ..engine.outputs import GuardedCommand
from ..host.system.program_files import PROGRAM


class Info(GuardedCommand, cmd_info.Info):  # type: ignore[misc]
    doc_purpose = "which steps a step waits for, and why it would run"

    def _execute(self, pos_args: list[str], hide_status: bool = False) -> int:
        tasks = {task.name: task for task in self.task_list}
        if len(pos_args) != 1:
            raise InvalidCommand(f"name one step: {PROGRAM} info environment")
        if pos_args[0] not in tasks:
            raise command_line.unknown(pos_args[0], [*tasks])
        task = tasks[pos_args[0]]
        print(f"{task.name}: {task.doc}" if task.doc else task.name)
        check = (task.meta or {}).get("check")
        is_due = check is not None and not hide_status and not check()
        if check is not None and not hide_status:
            print(f"  {'would run: ' if is_due else ''}{check!r}")
        steps = [name for name in task.task_dep if tasks[name].subtask_of == task.name]
        waits = [name for name in task.task_dep if name not in steps]
        if steps:
            print(f"  its steps: {', '.join(steps)}")
        if waits:
            print(f"  waits for: {', '.join(waits)}")
        log = (task.meta or {}).get("log")
        if log is not None and log.is_file():
            print(f"  log: {log}")
        return ExitCode.FAILED if is_due else ExitCode.OK
