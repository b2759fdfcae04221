"""ComfyUI's folder types (checkpoints, loras, …) and the folders of each."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from ..engine.run import Run
from ..engine.step import Task, step
from ..generation import stage as generation
from ..host.system import files
from ..host.system.failure import Failure
from ..spec import ModelRoot
from ..spec.fields import FOLDER_TYPE, NOT_MODELS

Types = Mapping[str, tuple[str, ...]]
"""Folder type → its folders, as in `source_facts.Code`."""


def tasks(run: Run) -> Iterator[Task]:
    yield step(
        run,
        "links:roots",
        "The models' extra roots exist",
        check=partial(_missing_root, run),
        action=partial(_require_roots, run),
        after=["directories"],
    )
    yield step(
        run,
        "links:extra_model_paths",
        "extra_model_paths.yaml",
        check=partial(_why_outdated, run),
        action=partial(_write_paths, run),
        after=["links:roots", "generation"],
    )


def model_paths(run: Run) -> str | None:
    """The text of extra_model_paths.yaml; None when ComfyUI's own folders are enough.

    It also maps folder types that this ComfyUI doesn't know: in the models folder those that
    machine.yaml uses, in an extra root those that exist there.
    """
    from ..host.system import templates

    types = _types(run)
    folders = [(root.path, _types_in(root, types)) for root in run.machine.models.extra_roots]
    known = {folder for names in types.values() for folder in names}
    if new := sorted(_kinds(run) - known):
        folders.insert(0, (run.machine.models.folder, {kind: (kind,) for kind in new}))
    if not folders:
        return None
    return templates.render("extra_model_paths.yaml.j2", folders=folders)


def expected_folders(run: Run) -> list[Path]:
    """The folders that an instance must search for models."""
    own = [run.machine.models.folder / kind for kind in sorted(_kinds(run))]
    extra = [
        root.path / name
        for root in run.machine.models.extra_roots
        for names in _types_in(root, _types(run)).values()
        for name in names
    ]
    return own + extra


def _types(run: Run) -> Types:
    """The pinned ComfyUI's folder types; while unknown, every folder is mapped by its name."""
    return generation.code_of(run).folder_types or {}


def _kinds(run: Run) -> set[str]:
    first = {
        file.target.partition("/")[0] for file in run.machine.models.files if "/" in file.target
    }
    return {kind for kind in first if _mappable(kind)}


def _mappable(kind: str) -> bool:
    return FOLDER_TYPE.fullmatch(kind) is not None and kind not in NOT_MODELS


def _types_in(root: ModelRoot, types: Types) -> Types:
    """The folder types of an extra root: those it names, or all that ComfyUI knows and further
    folders there."""
    if root.folders:
        return root.folders
    found = {kind: folders or (kind,) for kind, folders in types.items() if _mappable(kind)}
    known = {folder for folders in found.values() for folder in folders}
    try:
        with os.scandir(root.path) as entries:
            names = {entry.name for entry in entries if entry.is_dir() and _mappable(entry.name)}
    except OSError:
        names = set()
    return found | {name: (name,) for name in sorted(names - known)}


def _missing_root(run: Run) -> str | None:
    for root in run.machine.models.extra_roots:
        if not root.path.is_dir():
            return f"models.extra_roots: {root.path} is missing: mount it or correct path"
    return None


def _require_roots(run: Run, log: Path) -> None:
    if reason := _missing_root(run):
        raise Failure(reason)


def _why_outdated(run: Run) -> str | None:
    file = run.layout.extra_model_paths
    text = model_paths(run)
    if text is None:
        return f"{file} isn't needed any more" if file.exists() else None
    same = file.is_file() and file.read_text() == text
    return None if same else f"{file} differs"


def _write_paths(run: Run, log: Path) -> None:
    text = model_paths(run)
    if text is None:
        files.remove(run.layout.extra_model_paths)
    else:
        files.write_text(run.layout.extra_model_paths, text)
