"""ComfyUI's own files in models/: placeholders, configurations, embeddings."""

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
        "Copy the files that ComfyUI has in models/",
        check=partial(_why_outdated, run),
        action=partial(_copy, run),
        after=["validation"],
    )


def _receipt(run: Run) -> Path:
    return run.layout.state / "own-models.json"


def _copied(run: Run) -> dict[str, str | None]:
    """What the receipt says once the files are copied."""
    commit = source.source_of(run).read().get("commit")
    return {"commit": commit, "folder": str(run.machine.models.folder)}


def _why_outdated(run: Run) -> str | None:
    is_copied = files.read_receipt(_receipt(run)) == _copied(run)
    return None if is_copied else "this ComfyUI's own files are not copied yet"


def _copy(run: Run, log: Path) -> None:
    copied = _copied(run)
    folder = source.source_of(run).checkout(str(copied["commit"])) / "models"
    if os.access(run.machine.models.folder, os.W_OK):
        for relative in files.walk(folder):
            place = run.machine.models.folder / relative
            if not (os.path.lexists(place) or placement.read_only_root(run, place.parent)):
                files.copy_file(folder / relative, place)
    files.write_receipt(_receipt(run), copied)
