"""doit info: a task, and whether it is up to date."""

from __future__ import annotations

from doit import cmd_info
from doit.exceptions import InvalidCommand

from ..engine.outputs import GuardedCommand
from ..spec.problems import did_you_mean


class Info(GuardedCommand, cmd_info.Info):  # type: ignore[misc]
    def _execute(self, pos_args: list[str], hide_status: bool = False) -> int:
        names = [task.name for task in self.task_list]
        if len(pos_args) == 1 and pos_args[0] not in names:
            hint = did_you_mean(pos_args[0], names) or "; doit list shows them"
            raise InvalidCommand(f"no task {pos_args[0]}{hint}")
        return int(super()._execute(pos_args, hide_status=hide_status))
