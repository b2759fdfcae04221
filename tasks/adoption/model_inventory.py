"""The models of an installation: where each is, and what machine.yaml calls it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from ..engine.progress_board import Board
from ..host.downloads.store import hash_file
from ..host.system import thread_pool
from ..host.system.failure import Failure
from ..host.system.progress import Progress
from ..imports.model_paths import ModelPaths
from ..imports.model_roots import NO_MODELS
from ..spec.fields import FOLDER_TYPE, NOT_MODELS, check_target
from ..spec.problems import shown

UNFINISHED = (".part", ".partial", ".incomplete", ".crdownload", ".aria2", ".tmp")
CONFIGS = "configs"
READERS = 4
"""Files that are hashed at once, each on a core."""


@dataclass(frozen=True)
class Model:
    target: str
    """Its path in the models folder."""
    source: Path
    real: Path
    """The file itself, where `source` is a link."""


@dataclass
class Inventory:
    models: dict[str, Model] = field(default_factory=dict)
    """By target."""
    folders: set[str] = field(default_factory=set)
    """The folders that targets are in."""
    left_out: list[str] = field(default_factory=list)
    """What isn't taken over, and why."""


def look(own: Path, sections: Sequence[ModelPaths], tracked: AbstractSet[str]) -> Inventory:
    """The models in ComfyUI's own folder and in those of extra_model_paths.yaml, in the order in
    which ComfyUI searches them. `tracked` are ComfyUI's own files, which come with it."""
    found = Inventory()
    for before in (True, False):
        if not before:
            _add(found, "", own, tracked)
        for section in sections:
            if section.is_default == before:
                _add_section(found, section)
    return found


def hashes(models: Iterable[Model], board: Board) -> dict[Path, str]:
    """File → sha256, each read once, with a bar. Raises Failure for one that can't be read."""
    files = {model.real: model.target for model in models}
    progress = Progress("hashing models")
    for file in files:
        progress.add(str(file), file.stat().st_size)

    def hashed(file: Path) -> str:
        failed = True
        try:
            digest = hash_file(file, progress, str(file))
            failed = False
        finally:
            progress.end(str(file), failed=failed)
        return digest

    with board.following(progress):
        done = thread_pool.each(hashed, files, READERS)
    for file, digest in done:
        if isinstance(digest, BaseException):
            why = getattr(digest, "strerror", None) or str(digest)
            raise Failure(f"{file} can't be read ({why}): --no-hash takes it over unread")
    return {file: digest for file, digest in done if isinstance(digest, str)}


def _add_section(found: Inventory, section: ModelPaths) -> None:
    for kind, folders in section.folders.items():
        if kind in (NO_MODELS - {CONFIGS}) | NOT_MODELS or not FOLDER_TYPE.fullmatch(kind):
            continue
        for folder in folders:
            if folder.is_dir():
                _add(found, f"{kind}/", folder, frozenset())
            else:
                found.left_out.append(f"{folder}, {kind} of {section.name}, isn't there")


def _add(found: Inventory, prefix: str, folder: Path, tracked: AbstractSet[str]) -> None:
    for relative, path in _files(folder):
        target = f"{prefix}{relative}"
        # People name the folder of their checkpoints, in which the configurations lie.
        if relative in tracked or (prefix == f"{CONFIGS}/" and path.suffix != ".yaml"):
            continue
        why = _unusable(path, target)
        model = Model(target, path, Path(os.path.realpath(path)))
        above = {str(each) for each in PurePosixPath(target).parents} - {"."}
        if not why and (other := found.models.get(target)):
            same = other.real == model.real
            why = "" if same else f"is hidden by {shown(str(other.source), 300)}"
        elif target in found.folders or above & found.models.keys():
            why = "has the name of a folder, or is in one with the name of a file, elsewhere"
        if why:
            found.left_out.append(f"{shown(str(path), 300)} {why}")
        else:
            found.models.setdefault(target, model)
            found.folders |= above


def _unusable(path: Path, target: str) -> str:
    """Why a file can't be a model; empty: it can."""
    if path.suffix in UNFINISHED:
        return "is an unfinished download"
    try:
        if not path.stat().st_size:
            return "is empty"
        check_target(target)
    except OSError:
        return "is a broken link"
    except ValueError as error:
        return str(error)
    return ""


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """All files but hidden ones and ComfyUI's empty placeholders, through links to folders."""
    real = os.path.realpath(folder)
    above = {str(folder): frozenset([real])}
    for at, folders, names in os.walk(folder, followlinks=True):
        seen = above[at]
        kept = []
        for name in sorted(folders):
            inner = os.path.realpath(f"{at}/{name}")
            # A link to a folder around it would be a way without an end.
            if not name.startswith(".") and inner not in seen:
                kept.append(name)
                above[f"{at}/{name}"] = seen | {inner}
        folders[:] = kept
        for name in sorted(names):
            path = Path(at, name)
            is_placeholder = name.startswith("put_") and name.endswith("here")
            if not name.startswith(".") and not is_placeholder:
                yield path.relative_to(folder).as_posix(), path
