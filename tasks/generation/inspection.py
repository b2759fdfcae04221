"""What `doit verify` finds in sources, generations and PM2's package, by reading every file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..environment import verification
from ..host.generations import found_damage, manifest
from ..host.pm2 import pm2
from ..host.repositories import git
from ..host.storage import digest_folders
from ..host.system.failure import Failure
from ..host.system.program_files import PROGRAM
from ..spec.layout import Layout


@dataclass(frozen=True)
class Found:
    """A folder, and what is wrong with it."""

    path: Path
    damage: str


def find(layout: Layout) -> Iterator[Found]:
    """Everything that is damaged. A generation's damage is recorded, so that doit replaces it."""
    for folder in digest_folders.list_folders(layout.sources):
        if not folder.name.startswith(".") and (reason := git.damage(folder)):
            yield Found(folder, reason)
    for folder in digest_folders.list_folders(layout.generations):
        if digest_folders.read(folder) and (reason := look_at(folder)):
            yield Found(folder, reason)
    if pm2.folder(layout).exists() and (reason := pm2.damage(layout)):
        yield Found(pm2.folder(layout), reason)


def look_at(generation: Path) -> str | None:
    """What is damaged in a generation, by reading every file of its checkouts; None: nothing. It is
    recorded, so that the next run replaces that generation."""
    reason = _damage(generation)
    found_damage.write(generation, reason)
    return reason


def why_it_fails(generation: Path) -> str:
    """What may be why nothing starts from a generation, and what to do; empty: nothing is known."""
    if damage := verification.quick_look(generation) or look_at(generation):
        return f"{damage}: {PROGRAM} repair"
    try:
        found = manifest.edited(generation)
    except (AttributeError, Failure):
        return ""
    drop = " && ".join(f"git -C {top} checkout -- {' '.join(each)}" for top, each in found.items())
    return f"edited by hand: {drop} drops that" if drop else ""


def _damage(folder: Path) -> str | None:
    receipt = digest_folders.read(folder)
    found_damage.write(folder, None)
    try:
        reason = digest_folders.damaged(folder, receipt, manifest.damage)
        return reason or digest_folders.damaged(folder, receipt, manifest.hidden_damage)
    except Failure as failure:
        return str(failure)
