"""Checks of the models' targets against the folder types of the pinned ComfyUI."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from ..engine.run import Run
from ..host.comfyui.source_facts import Code
from ..spec import ModelFile, problem_at
from ..spec.problems import did_you_mean

MODELS = "models"
FOLDERS = (
    "checkpoints", "clip_vision", "controlnet", "diffusion_models", "embeddings", "loras",
    "style_models", "text_encoders", "unet", "upscale_models", "vae", "vae_approx",
)  # fmt: skip
"""Near misses of these are warned of while the folder types aren't known."""
EXTENSIONS = (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".sft")
"""The same for the extensions of models."""
_ANY_EXTENSION = re.compile(r"\.[a-z][a-z0-9]{0,11}")
Finding = tuple[int, str]
"""The index of a file in models.files, and a message."""


def is_in_folder_type(types: Mapping[str, tuple[str, ...]], target: str) -> bool:
    """Whether a target is in a folder of a folder type, below models/ or elsewhere."""
    folders = [folder for kind, below in types.items() for folder in below or (kind,)]
    return any(target.startswith(f"{folder}/") for folder in folders)


def warn(run: Run, code: Code) -> None:
    """Warn of targets that this ComfyUI won't find: once for each folder that it doesn't search,
    and of each file whose extension it doesn't list.

    A custom node may search that folder, which is unknown before it is loaded.
    """
    for text in _lines(run, code):
        run.warn(text)


def say(run: Run) -> None:
    """Say now, before anything is downloaded, what is known without ComfyUI's code."""
    for text in _lines(run, Code()):
        run.say(f"! {text}")


def _lines(run: Run, code: Code) -> Iterator[str]:
    for number, why in sorted([*_unknown_folders(run, code), *_unlisted_files(run, code)]):
        loc = ("models", "files", number, "target")
        yield str(problem_at(run.machine.file, loc, why))


def _unknown_folders(run: Run, code: Code) -> Iterator[Finding]:
    types, checked = code.folder_types, set()
    names = [each for below in types.values() for each in below] if types else list(FOLDERS)
    for number, file in enumerate(run.machine.models.files):
        first, slash, rest = file.target.partition("/")
        first = first if slash else ""
        if first in checked or (types and is_in_folder_type(types, file.target)):
            continue
        checked.add(first)
        hint = did_you_mean(first, names) if first and first not in names else ""
        if not slash and file.target in names:
            yield number, f"is a folder of models: end with the file's name, as in {file.target}/x"
        elif not slash:
            yield number, f"is in no folder, where ComfyUI looks for nothing{_place(file, names)}"
        elif first == MODELS:
            yield number, f"is below the models folder already; did you mean {rest}?"
        elif types or hint:
            name = f"ComfyUI {code.version}".strip()
            why = hint or ": right if a custom node does"
            yield number, f"{name} itself doesn't look into {PurePosixPath(first)}/{why}"


def _place(file: ModelFile, names: list[str]) -> str:
    kind = "checkpoints" if "checkpoints" in names else next(iter(names), "")
    return f": begin with one, as in {kind}/{file.target}" if kind else ""


def _unlisted_files(run: Run, code: Code) -> Iterator[Finding]:
    """Files without an extension, or with one that is nearly ComfyUI's; a `.gguf` is a node's."""
    for number, file in enumerate(run.machine.models.files):
        if file.source and file.source.is_dir():
            continue
        listed = _extensions(code, file.target)
        suffix = PurePosixPath(file.target).suffix.lower()
        if not listed or suffix in listed or "/" not in file.target:
            continue
        # Not of .pb, which only looks like .pt.
        alike = [each for each in listed if suffix and each[:3] == suffix[:3]]
        if near := did_you_mean(suffix, alike):
            yield number, f"ComfyUI lists no file that ends in {suffix}{near}"
        elif not _ANY_EXTENSION.fullmatch(suffix):
            yield number, f"has no extension, and ComfyUI lists none without{_meant(file, listed)}"


def _extensions(code: Code, target: str) -> tuple[str, ...]:
    """The extensions that ComfyUI lists in a target's folder; empty: all, or it isn't known."""
    types, known = code.folder_types, code.extensions
    if types is None or known is None:
        return EXTENSIONS if target.partition("/")[0] in FOLDERS else ()
    found = (
        known.get(kind, ())
        for kind, below in types.items()
        if any(target.startswith(f"{folder}/") for folder in below)
    )
    return next(found, ())


def _meant(file: ModelFile, listed: tuple[str, ...]) -> str:
    at = urlsplit(file.url).path if file.url else str(file.source)
    suffix = PurePosixPath(at).suffix.lower()
    if suffix in listed:
        return f"; did you mean {file.target}{suffix}?"
    return f": end with its own, such as {EXTENSIONS[0] if EXTENSIONS[0] in listed else listed[0]}"
