"""Ends everything that runs for a workspace."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from ...spec.layout import Layout
from ..storage import garbage
from ..system import files, private_folder
from . import apps, pm2, stops
from .stops import Why

Tell = Callable[[str], object]


def _tell_nobody(text: str) -> None:
    pass


def end_all(layout: Layout, why: Why, tell: Tell = _tell_nobody) -> list[apps.App]:
    """End everything as `end_processes` does, and remove the private folder."""
    running = end_processes(layout, why, tell)
    forget(layout)
    return running


def end_processes(layout: Layout, why: Why, tell: Tell = _tell_nobody) -> list[apps.App]:
    """End the watcher, then workers and the health server, then what hands out jobs, then
    instances, then what keeps the jobs, then PM2.

    `tell` is called with each. Returns the apps that ran. Raises Failure.
    """
    running = pm2.running(layout)
    names = {app.name for app in running}
    instances = set(filter(apps.is_instance, names))
    stops.note(layout, {app.name: app.pid for app in running}, why)
    if names and pm2.script(layout).is_file():
        # The watcher first, because it would restart instances.
        others = names - {apps.WATCHER}
        for group in ({apps.WATCHER}, *apps.in_turn(others), instances, {apps.JOBS_SERVER}):
            if found := names & group:
                tell(f"stops {', '.join(sorted(found))}")
                pm2.delete(layout, found, why)
    tell("stops PM2")
    pm2.kill(layout)
    for orphan in apps.running(layout.workspace, None):
        apps.end(orphan)
    apps.end_left(layout.workspace)
    garbage.stop(layout)
    return running


def forget(layout: Layout) -> None:
    """Remove the private folder, with the run lock."""
    with suppress(OSError):
        # If it is a mount point, it stays, empty.
        files.remove(private_folder.folder(layout.workspace))
