"""Checks of the models' targets against the folder types of the pinned ComfyUI."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

from ..engine.run import Run
from ..host.comfyui.source_facts import Code
from ..spec import problem_at
from ..spec.problems import did_you_mean

MODELS = "models"


def is_in_folder_type(types: Mapping[str, tuple[str, ...]], target: str) -> bool:
    """Whether a target is in a folder of a folder type, below models/ or elsewhere."""
    folders = [folder for kind, below in types.items() for folder in below or (kind,)]
    return any(target.startswith(f"{folder}/") for folder in folders)


def warn_of_unknown_folders(run: Run, code: Code) -> None:
    """Warn, once for each folder, of targets in folders that this ComfyUI doesn't search.

    A custom node may search them, which is unknown before it is loaded.
    """
    for number, why in _unknown_folders(run, code):
        loc = ("models", "files", number, "target")
        run.warn(str(problem_at(run.machine.file, loc, why)))


def _unknown_folders(run: Run, code: Code) -> Iterator[tuple[int, str]]:
    """The index of the first target in each such folder, and a message."""
    types, checked = code.folder_types, set()
    for number, file in enumerate(run.machine.models.files):
        first, slash, rest = file.target.partition("/")
        if types is None or not slash or first in checked or is_in_folder_type(types, file.target):
            continue
        checked.add(first)
        name = f"ComfyUI {code.version}".strip()
        if first == MODELS:
            yield number, f"is below the models folder already; did you mean {rest}?"
        else:
            names = [folder for below in types.values() for folder in below]
            hint = did_you_mean(first, names) or ": right if a custom node does"
            yield number, f"{name} itself doesn't look into {PurePosixPath(first)}/{hint}"
