"""Ends everything that runs for a workspace."""

from __future__ import annotations

from contextlib import suppress

from ...spec.layout import Layout
from ..storage import garbage
from ..system import files, private_folder
from . import apps, pm2, stops
from .stops import Why


def end_all(layout: Layout, why: Why) -> list[apps.App]:
    """End the watcher, then workers and the health server, then instances, then PM2.

    Returns the apps that ran. Raises Failure.
    """
    running = pm2.running(layout)
    names = {app.name for app in running}
    instances = set(filter(apps.is_instance, names))
    stops.note(layout, {app.name: app.pid for app in running}, why)
    if names and pm2.script(layout).is_file():
        # The watcher first, because it would restart instances.
        for group in ({apps.WATCHER}, names - instances, instances):
            pm2.delete(layout, names & group, why)
    pm2.kill(layout)
    for orphan in apps.running(layout.workspace, None):
        apps.end(orphan)
    apps.end_left(layout.workspace)
    garbage.stop(layout)
    with suppress(OSError):
        # If it is a mount point, it stays, empty.
        files.remove(private_folder.folder(layout.workspace))
    return running
