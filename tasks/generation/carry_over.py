"""Carry files that ComfyUI and custom nodes wrote into their folders to the next generation."""

from __future__ import annotations

import contextlib
import filecmp
import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from importlib.machinery import all_suffixes
from itertools import count
from pathlib import Path, PurePosixPath
from typing import Any

from ..host.generations import manifest, reported_changes
from ..host.repositories import git
from ..host.system import files
from ..host.system.failure import Failure

CODE = (*all_suffixes(), ".js", ".mjs", ".css", ".html")
"""Suffixes of files that are code, not settings: another commit's code would break this one."""


def carry(previous: Path, current: Path, old: set[str], new: set[str], left: Path) -> Iterator[str]:
    """Copy untracked files from one generation's ComfyUI to the next; yield what can't be copied.

    `old` and `new` name the declared custom nodes of each. Undeclared custom nodes were installed
    by hand and come along whole; the files of a node that is no longer declared go to `left`.
    Overwrites nothing in the next generation. The previous one may be damaged.
    """
    nodes = {f"custom_nodes/{name}" for name in old | new}
    generation = files.real(previous.parent)
    try:
        names = manifest.untracked(previous.parent, previous.name)
    except Failure as failure:
        yield _not_carried(previous, failure)
    else:
        others = [name for name in names if not _is_below(name, nodes | {"models"})]
        yield from _copy(previous, current, others, generation)
    for name in sorted(old):
        node = previous / "custom_nodes" / name
        if node.is_symlink() or not node.is_dir():
            continue
        target = current / "custom_nodes" / name if name in new else left / name
        if target.is_symlink():
            continue
        try:
            untracked = manifest.untracked(previous.parent, str(node.relative_to(previous.parent)))
        except Failure as failure:
            yield _not_carried(node, failure)
            continue
        moved = _moved_tracked_files(node, untracked)
        names = [name for name in untracked if name not in moved]
        yield from _copy(node, target, names, generation)


def _not_carried(place: Path, why: object) -> str:
    return (
        f"what was written into {place} isn't in the new generation ({why}): copy from there what "
        "you need"
    )


def carry_bytecode(previous: Path, current: Path, places: Iterable[str]) -> None:
    """Copy the bytecode of checkouts that are the same in both generations.

    Python uses it only for a source with the same time and size, so it can't be wrong.
    """
    for place in places:
        for folder, folders, _ in os.walk(previous / place):
            at_top = Path(folder) == previous / place
            skip = {".git", *(("models", "custom_nodes") if at_top else ())}
            if files.BYTECODE in folders:
                target = current / place / os.path.relpath(folder, previous / place)
                if target.is_dir() and not os.path.lexists(target / files.BYTECODE):
                    # Python can do without those that can't be read.
                    with contextlib.suppress(OSError):
                        shutil.copytree(Path(folder) / files.BYTECODE, target / files.BYTECODE)
            folders[:] = [name for name in folders if name not in {*skip, files.BYTECODE}]


def carry_rewritten(
    previous: Path,
    current: Path,
    rewritten: Mapping[str, Sequence[str]],
    heads: Mapping[str, str],
    whole: Collection[str],
    left: Path,
) -> Iterator[str]:
    """Carry over tracked files that custom nodes rewrite themselves; yield messages.

    `rewritten`: checkout (relative to both generations) → files; `heads`: checkout → commit in
    the previous generation; `whole`: checkouts that were copied whole. A settings file is carried
    over if both commits have the same original; any other difference is kept in `left`.
    """
    changes = reported_changes.read(previous)
    for place, names in rewritten.items():
        node = PurePosixPath(place).name
        kept = []
        for name in names:
            source, target = previous / place / name, current / place / name
            if _belongs_to_generation(source, files.real(previous)):
                continue
            if not _is_readable(source):
                yield _not_carried(source, "it can't be read")
                continue
            if _equal(source, target):
                if place not in whole:
                    continue
            elif _is_setting(previous, current, place, name, heads):
                files.remove(target)
                files.copy_file(source, target)
            else:
                if keep_aside(source, left / node / name):
                    kept.append(name)
                continue
            path = f"{place}/{name}"
            reported_changes.add(current, changes.files.get(path), file=path)
        if kept:
            what = "ComfyUI" if place == "ComfyUI" else f"custom node {node}"
            yield (
                f"{what}: a process had rewritten {', '.join(kept)}; the old content is in "
                f"{left / node}"
            )


def _is_setting(
    previous: Path, current: Path, place: str, name: str, heads: Mapping[str, str]
) -> bool:
    """Whether a rewritten file fits the next commit: not code, and the original is the same."""
    if name.endswith(CODE) or (current / place).is_symlink():
        return False
    original = _blob(previous / place, heads.get(place), name)
    return original is not None and original == _blob(current / place, "HEAD", name)


def carry_whole(source: Path, target: Path, generation: Path) -> None:
    """Copy a folder without what belongs to its generation."""
    files.copy_tree(source, target)
    for inner in sorted(target.rglob("*"), reverse=True):
        if _belongs_to_generation(inner, generation):
            files.remove(inner)


def keep_aside(source: Path, place: Path) -> bool:
    """Copy a file or link to `place`, or beside an existing other file; return whether it did."""
    for number in count(1):
        target = place if number == 1 else place.with_name(f"{place.name}.{number}")
        if _equal(source, target):
            return False
        if not os.path.lexists(target):
            files.copy_file(source, target)
            return True
    raise AssertionError("unreachable")


def _equal(one: Path, other: Path) -> bool:
    if one.is_symlink() or other.is_symlink():
        return files.link_target(one) == files.link_target(other)
    return one.is_file() and other.is_file() and filecmp.cmp(one, other, shallow=False)


def _blob(checkout: Path, commit: str | None, name: str) -> str | None:
    """The blob that a commit has under this name; None if unknown."""
    if commit is None or not checkout.is_dir():
        return None
    try:
        return str(git.command(checkout).rev_parse("--verify", "--quiet", f"{commit}:{name}"))
    except git.error_type():
        return None


def _moved_tracked_files(checkout: Path, untracked: Sequence[str]) -> set[str]:
    """Untracked files that are moved tracked ones: a script moved them, and will do so again."""
    command: Any = git.command(checkout)
    try:
        deleted = [name for name in command.ls_files("-z", "--deleted").split("\0") if name]
        tree = command.ls_tree("-r", "-l", "-z", "HEAD").split("\0") if deleted else []
    except git.error_type():
        # A damaged repository: better one file too many.
        return set()
    content: dict[int, set[str]] = {}
    for entry in tree:
        facts, _, name = entry.partition("\t")
        if name in deleted:
            _, _, blob, size = facts.split()
            content.setdefault(int(size) if size.isdigit() else -1, set()).add(blob)
    return {
        name
        for name in untracked
        if not name.endswith("/")
        and (blobs := content.get((checkout / name).lstat().st_size))
        and command.hash_object("--", name) in blobs
    }


def _is_below(name: str, folders: set[str]) -> bool:
    path = PurePosixPath(name)
    return any(str(each) in folders for each in (path, *path.parents))


def _copy(source: Path, target: Path, names: Iterable[str], generation: Path) -> Iterator[str]:
    """Copy these; yields what can't be read, or has no place because of what is there."""
    for name in names:
        path = source / name
        place = target / name
        if _belongs_to_generation(path, generation) or os.path.lexists(place):
            continue
        if in_the_way := files.in_the_way(place, target):
            yield _not_carried(path, f"{in_the_way} is no folder there")
            continue
        try:
            if name.endswith("/"):
                carry_whole(path, place, generation)
            else:
                files.copy_tree(path, place)
        except OSError:
            if all(_is_readable(each) for each in (path, *path.rglob("*"))):
                raise
            yield _not_carried(path, "not all of it can be read")


def _is_readable(path: Path) -> bool:
    return path.is_symlink() or os.access(path, os.R_OK | (os.X_OK if path.is_dir() else 0))


def _belongs_to_generation(path: Path, generation: Path) -> bool:
    """Whether a path is bytecode, a `.env`, or a link into the generation."""
    if files.BYTECODE in path.parts or path.suffix == ".pyc" or path.name == ".env":
        return True
    return path.is_symlink() and files.real(path).is_relative_to(generation)
