"""What outlives a generation: files that ComfyUI and custom nodes wrote into their folders."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from tasks.host import files, git


def carry(previous: Path, current: Path, old: set[str], new: set[str], left: Path) -> None:
    """Copy untracked files from one generation's ComfyUI to the next.

    `old` and `new` name the declared custom nodes of each. Custom nodes that nobody declared
    were installed by hand and come along whole; the files of a node that is no longer declared
    go to `left`. Nothing that the next generation already has is overwritten.
    """
    nodes = {f"custom_nodes/{name}" for name in old | new}
    own = [name for name in git.untracked(previous) if not _below(name, nodes | {"models"})]
    generation = previous.parent.resolve()
    _copy(previous, current, own, generation)
    for name in sorted(old):
        node = previous / "custom_nodes" / name
        if node.is_symlink() or not (node / ".git").exists():
            continue
        target = current / "custom_nodes" / name if name in new else left / name
        if not target.is_symlink():
            _copy(node, target, git.untracked(node), generation)


def _below(name: str, folders: set[str]) -> bool:
    path = PurePosixPath(name)
    return any(str(each) in folders for each in (path, *path.parents))


def _copy(source: Path, target: Path, names: Iterable[str], generation: Path) -> None:
    for name in names:
        path = source / name
        place = target / name
        if _stays(path, generation) or os.path.lexists(place):
            continue
        files.copy_tree(path, place)
        if name.endswith("/"):
            for inner in sorted(place.rglob("*"), reverse=True):
                if _stays(inner, generation):
                    files.remove(inner)


def _stays(path: Path, generation: Path) -> bool:
    """Bytecode, `.env` files, and links that lead into the generation belong to the old one."""
    if files.BYTECODE in path.parts or path.suffix == ".pyc" or path.name == ".env":
        return True
    return path.is_symlink() and path.resolve().is_relative_to(generation)
