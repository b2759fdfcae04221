"""The node classes that an instance has, as `GET /object_info` lists them.

Asked whole once per start, by whoever needs it first, and noted beside the instance: with assets
on ComfyUI answers by a scan of all its folders as well.
"""

from __future__ import annotations

from ...spec.layout import Layout
from ..pm2.apps import App
from ..system import files, locks, private_folder
from . import api, warmup


def classes(
    layout: Layout, gpu: int, app: App, listen: str, timeout: float = api.PROBE_TIMEOUT
) -> frozenset[str] | None:
    """Their names; None when it gives no such answer within `timeout` seconds."""
    with locks.exclusive(private_folder.make(layout.workspace) / f"classes-gpu{gpu}.lock"):
        told = files.read_receipt(layout.classes(gpu), pid=int, started=float, classes=list)
        if told and told["pid"] == app.pid and abs(told["started"] - app.started) <= warmup.SAME:
            return frozenset(map(str, told["classes"]))
        answer = api.ask(listen, app.port or 0, "/object_info", timeout, scheme=app.scheme)
        if not isinstance(answer, dict):
            return None
        of = {"pid": app.pid, "started": app.started}
        # The workspace may have been removed: leave nothing in its place.
        if layout.instance(gpu).is_dir():
            files.write_receipt(layout.classes(gpu), of | {"classes": sorted(answer)})
        return frozenset(answer)
