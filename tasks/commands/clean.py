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
