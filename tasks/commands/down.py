"""doit down: the watcher, workers and the health server, instances, then PM2's daemon."""

from __future__ import annotations

from typing import Any

from tasks.commands.base import LockingCommand
from tasks.host import apps, shutdown
from tasks.spec import Instance, Machine


class Down(LockingCommand):
    doc_purpose = "stop workers, instances and PM2; nothing of the machine is left running"

    def work(
        self,
        machine: Machine,
        instances: tuple[Instance, ...],
        options: dict[str, Any],
        arguments: list[str],
    ) -> int:
        running = shutdown.end_all(machine.layout)
        ended = [app for app in running if app.name not in apps.OURS]
        print(f"{len(ended)} stopped" if running else "nothing was running")
        return 0
