"""Each instance's databases: one for each commit of ComfyUI, named by it."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from ..engine.run import Run
from ..host.comfyui.database_files import LAST
from ..host.storage import digest_folders
from ..source import stage as source
from ..spec.layout import Layout


def file_of(run: Run, gpu: int) -> Path:
    """The one that the instance of a GPU is to use; the exec shim makes it."""
    return run.layout.databases(gpu) / f"{_name(source.source_of(run).read().get('commit'))}.db"


def unneeded(layout: Layout, generations: Collection[Path]) -> list[Path]:
    """Those of commits that none of the `generations` has, with what SQLite and ComfyUI wrote
    beside them. What was used last stays: the next is a copy of it.
    """
    heads = (digest_folders.read(folder, heads=dict).get("heads", {}) for folder in generations)
    kept = {_name(each.get(source.NAME)) for each in heads}
    found = []
    for folder in sorted(layout.instance(0).parent.glob("*/databases")):
        last = folder / LAST
        keep = {*kept, last.name, last.resolve().stem}
        found += [path for path in sorted(folder.iterdir()) if path.name.split(".")[0] not in keep]
    return found


def _name(commit: object) -> str:
    return str(commit)[:12]
