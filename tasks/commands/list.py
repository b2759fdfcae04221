"""doit list: doit's own, and with --json for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from doit import cmd_list

from ..engine import command_line
from ..engine.outputs import FORMAT, GuardedCommand
from .shared.command import json_option

if TYPE_CHECKING:
    from .shared.documents import ListDocument, TaskRow


class List(GuardedCommand, cmd_list.List):  # type: ignore[misc]
    doc_purpose = "the stages in their order; --all: every step"
    doc_usage = "[TASK ...]"
    has_json = True
    cmd_options = (*cmd_list.List.cmd_options, json_option())

    @staticmethod
    def _list_filtered(tasks: Any, filter_tasks: list[str], include_subtasks: bool) -> Any:
        for name in filter_tasks:
            if name not in tasks:
                raise command_line.unknown(name, tasks)
        return cmd_list.List._list_filtered(tasks, filter_tasks, include_subtasks)

    # doit reads the options' names from the signature.
    def _execute(
        self,
        subtasks: bool = False,
        quiet: bool = True,
        status: bool = False,
        private: bool = False,
        list_deps: bool = False,
        template: str | None = None,
        sort: str = "name",
        json: bool = False,
        pos_args: list[str] | None = None,
    ) -> int:
        if not json:
            return int(
                super()._execute(
                    subtasks, quiet, status, private, list_deps, template, sort, pos_args
                )
            )
        known = {task.name: task for task in self.task_list}
        chosen = list(dict.fromkeys(pos_args or known))
        for name in chosen:
            if name not in known:
                raise command_line.unknown(name, known)
        document: ListDocument = {
            "format": FORMAT,
            "tasks": [self._row(known[name], status=status) for name in chosen],
        }
        self.document = document
        return 0

    def _row(self, task: Any, *, status: bool) -> TaskRow:
        row: TaskRow = {
            "name": task.name,
            "doc": task.doc or "",
            "parent": task.subtask_of,
            "after": list(task.task_dep),
        }
        if status and task.meta:
            check = task.meta["check"]
            row["up_to_date"] = check()
            row["reason"] = check.reason or ""
        return row
