"""Further folders of models, as extra_model_paths.yaml names them for ComfyUI."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..host.comfyui.installations import MODEL_FOLDERS
from ..host.system.failure import Failure
from ..spec.fields import FOLDER_TYPE, NOT_MODELS
from . import model_paths
from .entries import Root
from .model_paths import NODES, ModelPaths
from .wanted import Wanted

NO_MODELS = frozenset(["configs", "input", "output", "temp", "user", "workflows"])
"""Folders of ComfyUI that such files name, and that no machine searches for models."""


def of_sections(document: Any, file: Path) -> Wanted | None:
    """What the file asks for; None: it isn't one. Raises OSError."""
    sections = [*document.values()] if isinstance(document, dict) else []
    kinds = {kind for each in sections if _is_section(each) for kind in each}
    if kinds.isdisjoint({"base_path", *MODEL_FOLDERS}):
        return None
    try:
        found = model_paths.read(file)
    except Failure as failure:
        raise ValueError(str(failure)) from None
    left_out: list[str] = []
    roots = [root for section in found for root in _roots(section, left_out)]
    return Wanted(roots=roots, left_out=left_out)


def _is_section(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and all(
        isinstance(each, str | bool) for each in value.values()
    )  # fmt: skip


def _roots(section: ModelPaths, left_out: list[str]) -> Iterator[Root]:
    """The section's folders; those that aren't there are named."""
    found: dict[str, list[Path]] = {}
    for kind, folders in section.folders.items():
        if kind == NODES:
            left_out += [
                f"{section.name}: {each} has custom nodes: adopt takes them over"
                for each in folders
                if each.is_dir()
            ]
        elif kind not in NOT_MODELS | NO_MODELS and FOLDER_TYPE.fullmatch(kind):
            there = [folder for folder in folders if folder.is_dir()]
            gone = [folder for folder in folders if folder not in there]
            if section.base is None or section.base.is_dir():
                left_out += [f"{section.name}: {each} isn't there" for each in gone]
            if there:
                found[kind] = there
    if section.base and not section.base.is_dir():
        left_out.append(f"{section.name}: {section.base} isn't there")
    if found:
        yield root_of(found, section.base, [f"its section {section.name}"])


def root_of(found: Mapping[str, Sequence[Path]], base: Path | None, notes: Sequence[str]) -> Root:
    """One root for folders by type."""
    every = [folder for folders in found.values() for folder in folders]
    if base is None or not all(folder.is_relative_to(base) for folder in every):
        base = Path(os.path.commonpath(every))
    names = {
        kind: [str(folder.relative_to(base)) for folder in folders]
        for kind, folders in found.items()
    }
    return Root(str(base), names, notes)
