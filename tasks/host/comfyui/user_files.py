"""What a new instance's user folder starts with: instances.user, copied once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path

from ..system import files
from ..system.failure import Failure

NOT_COPIED = ("*.db", "*.db-*", "*.db.*", "*.log", "*.log.*", "*.lock", "__pycache__")
"""Databases, which belong to one process, and logs."""


def without(source: Path | None, folders: Iterable[Path]) -> list[Path]:
    """The user folders that are still to be filled: those with nothing in them."""
    if source is None:
        return []
    empty = [folder for folder in folders if _is_empty(folder)]
    return empty if empty and (not source.is_dir() or _has_files(source)) else []


def provide(source: Path | None, folders: Iterable[Path]) -> None:
    """Fill them. Raises Failure without the folder that is to be copied."""
    for folder in without(source, folders):
        assert source
        if not source.is_dir():
            raise Failure(
                f"instances.user: {source} is missing, and {folder} is to start with a copy of it: "
                "mount it, correct user, or remove it"
            )
        part = folder.with_name(f"{folder.name}.part")
        files.remove(part)
        try:
            with files.removed_on_failure(part):
                _copy(source, part)
                # Only an empty folder is replaced.
                part.replace(folder)
        except (OSError, shutil.Error) as error:
            why = getattr(error, "strerror", None) or error
            raise Failure(f"{source} can't be copied to {folder}: {why}") from error


def _copy(source: Path, target: Path) -> None:
    """Private, since settings may hold keys. Raises OSError and shutil.Error."""
    shutil.copytree(
        source,
        target,
        ignore=lambda _, names: {name for name in names if not _is_copied(name)},
        ignore_dangling_symlinks=True,
    )
    for at, _, names in os.walk(target):
        Path(at).chmod(0o700)
        for name in names:
            Path(at, name).chmod(0o600)


def _is_copied(name: str) -> bool:
    return not any(fnmatch(name, pattern) for pattern in NOT_COPIED)


def _is_empty(folder: Path) -> bool:
    return not folder.is_dir() or not any(folder.iterdir())


def _has_files(source: Path) -> bool:
    """Whether a copy has something in it."""
    return any(_is_copied(path.name) for path in source.iterdir())
