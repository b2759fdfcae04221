"""ComfyUI's own files in models/: notes that say what belongs where, configurations, embeddings."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from ..engine.run import Run
from ..engine.step import Task, step
from ..host.system import files
from ..models import placement
from ..source import stage as source


def task(run: Run) -> Task:
    return step(
        run,
        "links:own",
        "The files that ComfyUI brings in models/",
        check=partial(_not_seeded, run),
        action=partial(_seed, run),
        after=["validation"],
    )


def _seeds(run: Run) -> Path:
    return run.layout.state / "own-models.json"


def _not_seeded(run: Run) -> str | None:
    seeded = files.read_receipt(_seeds(run))
    wanted = {
        "commit": source.of(run).read().get("commit"),
        "folder": str(run.machine.models.folder),
    }
    return None if seeded == wanted else "ComfyUI's own files were not copied into this folder yet"


def _seed(run: Run, log: Path) -> None:
    comfyui = source.of(run)
    commit = str(comfyui.read().get("commit"))
    folder = comfyui.checkout(commit) / "models"
    if os.access(run.machine.models.folder, os.W_OK):
        for relative in files.walk(folder):
            place = run.machine.models.folder / relative
            if not (os.path.lexists(place) or placement.read_only_root(run, place.parent)):
                files.copy_file(folder / relative, place)
    files.write_receipt(_seeds(run), {"commit": commit, "folder": str(run.machine.models.folder)})
