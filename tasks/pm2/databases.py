"""The databases of each instance: one for each commit of ComfyUI, named by it."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from ..engine.run import Run
from ..host.comfyui.database_files import LAST
from ..host.storage import digest_folders
from ..host.system import files
from ..source import stage as source
from ..spec.layout import Layout


def file_of(run: Run, gpu: int) -> Path:
    """The database of a GPU's instance; the exec shim creates it."""
    return run.layout.databases(gpu) / f"{_name(source.source_of(run).read().get('commit'))}.db"


def unneeded(layout: Layout, generations: Collection[Path]) -> list[Path]:
    """The databases of commits that none of the `generations` has, with SQLite's and ComfyUI's
    files beside them. The last used one stays, since the next one starts as its copy.
    """
    heads = (digest_folders.read(folder, heads=dict).get("heads", {}) for folder in generations)
    kept = {_name(each.get(source.NAME)) for each in heads}
    paths = []
    for folder in sorted(layout.instance(0).parent.glob("*/databases")):
        last = folder / LAST
        keep = {*kept, last.name, files.real(last).stem}
        paths += [path for path in sorted(folder.iterdir()) if path.name.split(".")[0] not in keep]
    return paths


def _name(commit: object) -> str:
    return str(commit)[:12]
