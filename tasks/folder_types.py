"""ComfyUI's folder types (checkpoints, loras, …) and which folders it is to look into for each."""

from __future__ import annotations

import os
import re
from pathlib import Path

from tasks.host.failure import Failure
from tasks.host.model_files import OLDER
from tasks.spec import Machine, ModelRoot

#: ComfyUI's folder types, `clip` and `unet` under their newer names (folder_paths.py of 0.3.64).
KINDS = tuple(
    """checkpoints loras vae text_encoders diffusion_models clip_vision style_models embeddings
    vae_approx controlnet gligen upscale_models hypernetworks photomaker model_patches
    audio_encoders configs diffusers classifiers""".split()
)
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_. -]*")
#: In extra_model_paths.yaml this is a place of code.
_NEVER = frozenset({"custom_nodes", "is_default", "base_path"})


def model_paths(machine: Machine) -> str | None:
    """The text of extra_model_paths.yaml; None when ComfyUI's own folders are all there is.

    A folder type that ComfyUI has never heard of is mapped too, in the models folder for what
    machine.yaml puts into it, in a further root for what lies there.
    """
    from tasks.host import templates

    folders = [(root.path, _kinds_in(root)) for root in machine.models.extra_roots]
    if new := _new_kinds(machine):
        folders.insert(0, (machine.models.folder, new))
    if not folders:
        return None
    return templates.render("extra_model_paths.yaml.j2", folders=folders)


def expected(machine: Machine) -> list[Path]:
    """Folders that an instance must look into."""
    here = [machine.models.folder / kind for kind in sorted(_kinds(machine))]
    roots = machine.models.extra_roots
    return [*here, *(root.path / kind for root in roots for kind in _kinds_in(root))]


def insist_on_roots(machine: Machine) -> None:
    """Raise Failure for a further root that isn't there."""
    for root in machine.models.extra_roots:
        if not root.path.is_dir():
            raise Failure(f"models.extra_roots: {root.path} isn't there: mount it or correct path")


def _kinds(machine: Machine) -> set[str]:
    """The folder types that targets lie in; what lies beside them has none."""
    first = {file.target.partition("/")[0] for file in machine.models.files if "/" in file.target}
    return {kind for kind in first if _mappable(kind)}


def _mappable(kind: str) -> bool:
    return _PLAIN.fullmatch(kind) is not None and kind not in _NEVER


def _new_kinds(machine: Machine) -> list[str]:
    return sorted(_kinds(machine) - {*KINDS, *OLDER})


def _kinds_in(root: ModelRoot) -> list[str]:
    try:
        with os.scandir(root.path) as entries:
            there = {entry.name for entry in entries if entry.is_dir() and _mappable(entry.name)}
    except OSError:
        there = set()
    return [*KINDS, *sorted(there - set(KINDS))]
