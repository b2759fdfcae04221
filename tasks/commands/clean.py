"""doit clean: remove checkouts, unused environments and generations; keep what runs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from doit import cmd_clean
from doit.exceptions import InvalidCommand

from ..engine.configuration import load_run
from ..host.storage import digest_folders
from ..host.system.run_lock import RunLock, Taken


class Clean(cmd_clean.Clean):  # type: ignore[misc]
    """doit's own command, with the run lock; it prints what it removes."""

    doc_purpose = "remove checkouts and unused generations; never what runs, models or outputs"

    def clean_tasks(self, tasks: Iterable[Any], dryrun: bool, cleanforget: bool) -> None:
        run = load_run()
        lock = RunLock(run.machine.workspace)
        try:
            lock.take("clean")
        except Taken as taken:
            raise InvalidCommand(str(taken)) from None
        removed = 0
        for task in tasks:
            garbage = task.meta and task.meta["garbage"]
            for path in garbage() if garbage else ():
                self.outstream.write(f"{'would remove' if dryrun else 'removed'} {path}\n")
                removed += 1
                if not dryrun:
                    digest_folders.remove(path)
        if not removed:
            self.outstream.write("nothing to remove\n")
        lock.release()
        self.dep_manager.close()
