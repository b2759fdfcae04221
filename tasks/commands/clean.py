"""doit clean: remove checkouts, unused environments and generations; keep what runs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from doit import cmd_clean
from doit.exceptions import InvalidCommand

from ..engine.configuration import current_run
from ..host.storage import digest_folders
from ..host.system.run_lock import Taken
from .shared.command import locked


class Clean(cmd_clean.Clean):  # type: ignore[misc]
    """doit's own command, with the run lock; it prints what it removes."""

    doc_purpose = "remove checkouts and unused generations; never what runs, models or outputs"

    def clean_tasks(self, tasks: Iterable[Any], dryrun: bool, cleanforget: bool) -> None:
        garbage = [task.meta["garbage"] for task in tasks if task.meta and task.meta["garbage"]]
        removed = False
        try:
            with locked(current_run(), "clean"):
                for path in (path for listed in garbage for path in listed()):
                    self.outstream.write(f"{'would remove' if dryrun else 'removed'} {path}\n")
                    removed = True
                    if not dryrun:
                        digest_folders.remove(path)
        except Taken as taken:
            raise InvalidCommand(str(taken)) from None
        if not removed:
            self.outstream.write("nothing to remove\n")
        self.dep_manager.close()
