"""ComfyUI's folder types (checkpoints, loras, …) and which folders it is to look into for each."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from ..engine.run import Run
from ..engine.step import Task, step
from ..generation import stage as generation
from ..host.system import files
from ..host.system.failure import Failure
from ..spec import ModelRoot

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_. -]*")
#: In extra_model_paths.yaml this is a place of code.
_NOT_MODELS = frozenset({"custom_nodes", "is_default", "base_path"})
Types = Mapping[str, tuple[str, ...]]
"""Folder type → the folders of it, as in `comfyui_code.Code`."""


def tasks(run: Run) -> Iterator[Task]:
    yield step(
        run,
        "links:roots",
        "Further roots of models are there",
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
    """The text of extra_model_paths.yaml; None when ComfyUI's own folders are all there is.

    A folder type that this ComfyUI has never heard of is mapped too, in the models folder for what
    machine.yaml puts into it, in a further root for what lies there.
    """
    from ..host.system import templates

    types = _types(run)
    folders = [(root.path, _types_in(root, types)) for root in run.machine.models.extra_roots]
    if new := _new_kinds(run, types):
        folders.insert(0, (run.machine.models.folder, {kind: (kind,) for kind in new}))
    if not folders:
        return None
    return templates.render("extra_model_paths.yaml.j2", folders=folders)


def expected_folders(run: Run) -> list[Path]:
    """Folders that an instance must look into."""
    here = [run.machine.models.folder / kind for kind in sorted(_kinds(run))]
    there = [(root.path, _types_in(root, _types(run))) for root in run.machine.models.extra_roots]
    return [*here, *(path / name for path, of in there for names in of.values() for name in names)]


def _types(run: Run) -> Types:
    """Those of the pinned ComfyUI; as long as they aren't known, every folder is mapped by name."""
    return generation.code_of(run).folder_types or {}


def _kinds(run: Run) -> set[str]:
    """The folders that targets lie in; what lies beside them has none."""
    first = {
        file.target.partition("/")[0] for file in run.machine.models.files if "/" in file.target
    }
    return {kind for kind in first if _mappable(kind)}


def _mappable(kind: str) -> bool:
    return _PLAIN_NAME.fullmatch(kind) is not None and kind not in _NOT_MODELS


def _new_kinds(run: Run, types: Types) -> list[str]:
    below = {folder for folders in types.values() for folder in folders}
    return sorted(_kinds(run) - below)


def _types_in(root: ModelRoot, types: Types) -> Types:
    """What is looked for in a further root: all that ComfyUI knows, and what lies there besides."""
    found = {kind: folders or (kind,) for kind, folders in types.items() if _mappable(kind)}
    known = {folder for folders in found.values() for folder in folders}
    try:
        with os.scandir(root.path) as entries:
            there = {entry.name for entry in entries if entry.is_dir() and _mappable(entry.name)}
    except OSError:
        there = set()
    return found | {name: (name,) for name in sorted(there - known)}


def _missing_root(run: Run) -> str | None:
    for root in run.machine.models.extra_roots:
        if not root.path.is_dir():
            return f"models.extra_roots: {root.path} isn't there: mount it or correct path"
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
