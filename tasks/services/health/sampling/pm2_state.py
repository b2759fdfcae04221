"""The apps as PM2 has them; it is asked again only when one came, went, or has another pid."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from ....host.pm2 import app_state, daemon_socket
from ....host.pm2.app_processes import Census, Found
from ....host.pm2.app_state import AppState
from ....host.system import private_folder
from ....spec.layout import Layout

ASK_EVERY = 0.5
"""Seconds at least between two requests."""
YOUNG = 3.0
"""Seconds of uptime below which PM2 may have started a process since the last request."""


class Supervisor:
    """The last answer of PM2; may be used from any thread."""

    def __init__(self, workspace: Path, census: Census) -> None:
        self._home = private_folder.folder(workspace)
        self._layout = Layout(workspace)
        self._census = census
        self._change = -1
        self._apps: dict[str, dict[str, Any]] = {}
        self._asked = float("-inf")
        self._lock = threading.Lock()

    def state(self, name: str, found: Found | None, memory: int | None) -> AppState:
        """The state of an app, from its process and PM2's answer."""
        pid = found.app.pid if found else None
        known = self._about(name, pid)
        young = found is not None and time.time() - found.app.started < YOUNG
        supervised = pid is not None and (known.get("pid") == pid or young)
        app = replace(found.app, supervised=supervised) if found else None
        entry = known.get("pm2_env")
        entry = entry if isinstance(entry, dict) else None
        return app_state.of(app, memory, entry, self._layout, name)

    def _about(self, name: str, pid: int | None) -> dict[str, Any]:
        with self._lock:
            known, change = self._apps.get(name, {}), self._census.change()
            other = (known.get("pid") or None) != pid or change != self._change
            if other and time.monotonic() - self._asked >= ASK_EVERY:
                self._asked, self._change = time.monotonic(), change
                answer = daemon_socket.ask(self._home)
                self._apps = {app["name"]: app for app in (answer.apps or ())} if answer else {}
                known = self._apps.get(name, {})
            return known
