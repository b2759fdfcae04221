"""ComfyUI's own files in models/: notes that say what belongs where, configurations, embeddings."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from ..engine.step import Task, step
from ..host.system import files
from ..source import stage as source
from ..spec import Machine


def task(machine: Machine) -> Task:
    return step(
        "links:own",
        "The files that ComfyUI brings in models/",
        check=partial(_not_seeded, machine),
        action=partial(_seed, machine),
        log=machine.layout.log("links:own"),
        after=["validation"],
    )


def _seeds(machine: Machine) -> Path:
    return machine.layout.state / "own-models.json"


def _not_seeded(machine: Machine) -> str | None:
    seeded = files.read_receipt(_seeds(machine))
    wanted = {
        "commit": source.of(machine).read().get("commit"),
        "folder": str(machine.models.folder),
    }
    return None if seeded == wanted else "ComfyUI's own files were not copied into this folder yet"


def _seed(machine: Machine, log: Path) -> None:
    comfyui = source.of(machine)
    commit = str(comfyui.read().get("commit"))
    folder = comfyui.checkout(commit) / "models"
    if os.access(machine.models.folder, os.W_OK):
        for relative in files.walk(folder):
            place = machine.models.folder / relative
            if not os.path.lexists(place):
                files.copy_file(folder / relative, place)
    files.write_receipt(_seeds(machine), {"commit": commit, "folder": str(machine.models.folder)})
