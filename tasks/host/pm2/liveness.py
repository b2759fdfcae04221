"""Why a running app fails its liveness probe: the watcher notes it, everyone else reads it."""

from __future__ import annotations

from ...spec.layout import Layout
from ..system import files
from . import apps


def note(layout: Layout, name: str, process: str, why: str | None) -> None:
    """Note the result of a probe of this process (`apps.identity`); None: it passed.

    Raises OSError.
    """
    record = layout.probed(name)
    if why is None:
        files.remove(record)
    elif layout.state.is_dir():
        files.clear_way(record)
        files.write_receipt(record, {"process": process, "why": why}, durable=False)


def fault(layout: Layout, app: apps.App) -> str:
    """Why the app fails its probe; empty when it doesn't, or has none. Never raises."""
    known = files.read_receipt(layout.probed(app.name), process=str, why=str)
    if not known or known["process"] != apps.identity(app.pid):
        return ""
    return str(known["why"])
