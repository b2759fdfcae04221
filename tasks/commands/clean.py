"""doit clean: remove checkouts, unused environments and generations; keep what runs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from doit import cmd_clean
from doit.exceptions import InvalidCommand

from ..engine import command_line
from ..engine.configuration import current_run
from ..host.storage import digest_folders
from ..host.system.run_lock import Taken
from .shared.command import locked


class Clean(cmd_clean.Clean):  # type: ignore[misc]
    """doit's own command, with the run lock; it prints what it removes."""

    doc_purpose = "remove unused generations; never what runs, models or outputs"
    doc_description = "Removes checkouts too. The next run makes again what it needs."

    def _execute(
        self,
        dryrun: bool,
        cleandep: bool,
        cleanall: bool,
        cleanforget: bool,
        pos_args: Any = None,
    ) -> Any:
        names = [task.name for task in self.task_list]
        for name in pos_args or ():
            if name not in names and "*" not in name:
                raise command_line.unknown(name, names)
        return super()._execute(dryrun, cleandep, cleanall, cleanforget, pos_args)

    def clean_tasks(self, tasks: Iterable[Any], dryrun: bool, cleanforget: bool) -> None:
        garbage = [task.meta["garbage"] for task in tasks if task.meta and task.meta["garbage"]]
        try:
            with locked(current_run(), "clean"):
                # Before anything is removed: what is left then would have other garbage.
                paths = list(dict.fromkeys(path for listed in garbage for path in listed()))
                for path in paths:
                    if not dryrun:
                        digest_folders.remove(path)
                    self.outstream.write(f"{'would remove' if dryrun else 'removed'} {path}\n")
        except Taken as taken:
            raise InvalidCommand(str(taken)) from None
        if not paths:
            self.outstream.write("nothing to remove\n")
        self.dep_manager.close()
