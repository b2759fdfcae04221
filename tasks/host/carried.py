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
    _copy(previous, current, own)
    for name in sorted(old):
        node = previous / "custom_nodes" / name
        if node.is_symlink() or not (node / ".git").exists():
            continue
        target = current / "custom_nodes" / name if name in new else left / name
        if not target.is_symlink():
            _copy(node, target, git.untracked(node))


def _below(name: str, folders: set[str]) -> bool:
    path = PurePosixPath(name)
    return any(str(each) in folders for each in (path, *path.parents))


def _copy(source: Path, target: Path, names: Iterable[str]) -> None:
    for name in names:
        path = source / name
        if _stays(path, source):
            continue
        place = target / name
        if not os.path.lexists(place):
            files.copy_tree(path, place)


def _stays(path: Path, top: Path) -> bool:
    """Bytecode, `.env` files, and links that lead into a generation belong to the old one."""
    if files.BYTECODE in path.parts or path.suffix == ".pyc" or path.name == ".env":
        return True
    generations = top.resolve()
    return path.is_symlink() and path.resolve().is_relative_to(generations)
