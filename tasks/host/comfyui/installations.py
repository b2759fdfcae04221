"""A ComfyUI or a models folder that somebody made by hand, looked for nearby; only read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ...spec.urls import parse_remote
from ..repositories import git
from ..system.failure import Failure

MODEL_FOLDERS = ("checkpoints", "diffusion_models", "unet", "loras", "vae", "text_encoders", "clip")
"""A folder that has some of these has models."""
DEEPEST = 3
"""Folders below the given one in which a ComfyUI is looked for."""
ENOUGH = 2
"""Of MODEL_FOLDERS, so that a project's folder named models isn't taken for one."""


@dataclass(frozen=True)
class Checkout:
    """A repository's working tree."""

    name: str
    url: str
    ref: str
    """A tag of HEAD's commit, where it has one; else the commit."""
    commit: str = ""
    edits: tuple[str, ...] = ()
    """Tracked files that differ from it."""
    is_published: bool = True
    """Whether a branch or tag of its repository, as far as this clone knows, has the commit."""


@dataclass(frozen=True)
class Installation:
    folder: Path
    comfyui: Checkout | None
    """None: it has no repository that others could clone."""
    nodes: list[Checkout | Path]
    """Custom nodes; a folder where there is no such repository."""


def find(near: Path, home: Path) -> Installation | None:
    """The ComfyUI in or beside a folder, else the one in the user's home."""
    places = (near, near / "ComfyUI", near.parent, near.parent / "ComfyUI", home / "ComfyUI")
    for folder in places:
        if is_comfyui(folder):
            nodes = [checkout(each) or each for each in node_folders(folder / "custom_nodes")]
            return Installation(folder, checkout(folder), nodes)
    return None


def locate(folder: Path) -> list[Path]:
    """The ComfyUI that a folder is, else those nearest to its top: in the portable version's,
    comfy-cli's or a launcher's folder. Links aren't followed."""
    level = [folder]
    for _ in range(DEEPEST + 1):
        if found := [each for each in level if is_comfyui(each)]:
            return found
        level = [inner for each in level for inner in _folders(each)]
    return []


def models(near: Path, installation: Installation | None) -> Path | None:
    """The folder with models: of that ComfyUI, else in or beside a folder."""
    places = [near / "models", near.parent / "models"]
    if installation:
        places.insert(0, installation.folder / "models")
    return next((place for place in places if _has_models(place)), None)


def is_comfyui(folder: Path) -> bool:
    try:
        # What this program made has its models and nodes in machine.yaml already.
        ours = ".machine" in folder.resolve().parts
        return not ours and (folder / "main.py").is_file() and (folder / "comfy").is_dir()
    except (OSError, RuntimeError):
        return False


def _has_models(folder: Path) -> bool:
    try:
        found = [name for name in MODEL_FOLDERS if (folder / name).is_dir()]
        has_files = any(
            each.is_file() and not each.name.startswith(("put_", "."))
            for name in found
            for each in (folder / name).iterdir()
        )
        return len(found) >= ENOUGH and has_files
    except OSError:
        return False


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(
            each for each in folder.iterdir()
            if each.is_dir() and not each.is_symlink() and not each.name.startswith(".")
        )  # fmt: skip
    except OSError:
        return []


def node_folders(folder: Path) -> Iterator[Path]:
    """The custom nodes in a folder of such, without those that are turned off."""
    try:
        inside = sorted(folder.iterdir())
    except OSError:
        return
    for each in inside:
        if (each / "__init__.py").is_file() and not each.name.endswith(".disabled"):
            yield each


def checkout(folder: Path) -> Checkout | None:
    """None without a commit, or without a URL that machine.yaml accepts."""
    commit = git.head(folder)
    if commit is None:
        return None
    try:
        repository = git.command(folder)
        url = parse_remote(repository.config("--get", "remote.origin.url")).url
        tags = str(repository.tag("--points-at", "HEAD")).split()
        having = repository.for_each_ref("--contains", "HEAD", "--count=1", "refs/remotes")
        edits = tuple(git.edited(folder))
    except (Failure, ValueError, git.error_type()):
        return None
    ref = tags[0] if tags else commit
    return Checkout(folder.name, url, ref, commit, edits, bool(tags or having))
