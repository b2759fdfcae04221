"""Watches the watcher: the health server starts one that stopped, hangs, or was given up."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ..host.pm2 import apps, pm2
from ..host.pm2.app_processes import Census
from ..host.system import heartbeat
from ..host.system.log_once import LogOnce
from ..host.system.run_lock import RunLock
from ..spec.layout import Layout
from .saying import say

EVERY = 5.0
"""Seconds between two looks."""


def fault(layout: Layout, census: Census) -> str | None:
    """What is wrong with the watcher, in words; None: nothing, or this machine has none."""
    if not (layout.apps / f"{apps.WATCHER}.json").exists():
        return None
    found = census.find(apps.WATCHER)
    return heartbeat.fault(layout.workspace, (found.app.pid, found.app.started) if found else None)


def mend(layout: Layout, census: Census) -> None:
    """Start or restart the watcher if it needs that, and no run is on."""
    why = fault(layout, census)
    if why is None or RunLock(layout.workspace).holder() is not None:
        return
    found = census.find(apps.WATCHER)
    if found is None:
        done = pm2.begin(layout, apps.WATCHER)
    else:
        done = pm2.restart(layout, apps.WATCHER, found.app.pid, why, "server")
    if done:
        say(f"{why}: it was restarted")


def start(layout: Layout, census: Census, stop: threading.Event) -> None:
    """Watch it in a thread of its own until `stop` is set."""
    threading.Thread(target=_run, args=(lambda: mend(layout, census), stop), daemon=True).start()


def _run(mend: Callable[[], None], stop: threading.Event) -> None:
    log_once = LogOnce()
    while not stop.wait(EVERY):
        log_once.attempt(mend)
