"""doit down: the watcher, workers and the health server, instances, then PM2's daemon."""

from __future__ import annotations

from typing import Any

from tasks.commands.base import LockingCommand
from tasks.host import apps, files, pm2, private
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
        layout = machine.layout
        running = pm2.running(layout)
        others = {app.name for app in running if not app.name.startswith("comfyui-gpu")}
        if others and pm2.script(layout).is_file():
            # The watcher first: what is ended here is not to be restarted.
            pm2.delete(layout, others & {apps.WATCHER})
            pm2.delete(layout, others)
        pm2.kill(layout)
        for orphan in apps.running(layout.workspace, None):
            apps.end(orphan)
        files.remove(private.folder(layout.workspace))
        ended = [app for app in running if app.name not in apps.OURS]
        print(f"{len(ended)} stopped" if running else "nothing was running")
        return 0
