"""doit down: stop the watcher, workers, the health server, instances, then PM2's daemon."""

from __future__ import annotations

from ..host.pm2 import apps, shutdown
from .shared.command import Call, LockingCommand


class Down(LockingCommand):
    doc_purpose = "stop everything that the machine runs"

    def work(self, call: Call) -> int:
        with call.run.working("down"):
            running = shutdown.end_all(call.run.layout, "down", call.run.doing)
        ended = [app for app in running if app.name not in apps.OURS]
        print(f"{len(ended)} stopped" if running else "nothing was running")
        return 0
