"""Folders that are made once and then left alone, because something may run from them.

A folder `<digest>` is complete when its receipt `<digest>.json`, written last, exists beside it. A
damaged folder is never repaired in place: `<digest>.2` is made instead.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from ..system import files
from ..system.failure import Failure

Damage = Callable[[Path, dict[str, Any]], str | None]
"""Returns what is wrong with a folder that has this receipt; None: nothing."""


def receipt_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.json")


def read(folder: Path, **types: type) -> dict[str, Any]:
    return files.read_receipt(receipt_of(folder), digest=str, **types)


def finish(folder: Path, receipt: dict[str, Any]) -> None:
    """Declare `folder` complete; what is in it is on the disk before the receipt is."""
    if not receipt_of(folder).exists():
        files.sync(folder)
    files.write_receipt(receipt_of(folder), receipt)


def point(pointer: Path, folder: Path, digest: str) -> None:
    """Record which folder a step made or chose."""
    files.write_receipt(pointer, {"digest": digest, "folder": folder.name})


def pointed(pointer: Path, parent: Path) -> Path:
    """The folder that `pointer` names. Raises Failure when it names none."""
    name = files.read_receipt(pointer).get("folder")
    if not isinstance(name, str):
        raise Failure(f"{pointer.stem} was never made")
    return parent / name


def choose(
    parent: Path, digest: str, damage: Damage, in_use: frozenset[str] = frozenset()
) -> tuple[Path, bool]:
    """The folder for `digest` below `parent`, and whether it is already complete.

    An incomplete folder was left by a killed run: remove it first. If its name is `in_use`, only
    its receipt was lost, and another folder is chosen.
    """
    for number in count(1):
        folder = parent / (digest if number == 1 else f"{digest}.{number}")
        receipt = read(folder)
        if not receipt and folder.name in in_use and folder.is_dir():
            continue
        if not receipt:
            return folder, False
        if damaged(folder, receipt, damage) is None:
            return folder, True
    raise AssertionError("unreachable")


def damaged(folder: Path, receipt: dict[str, Any], damage: Damage) -> str | None:
    """The result of `damage`; what it can't read counts as damaged."""
    try:
        return damage(folder, receipt)
    except OSError as error:
        return f"{error.filename} can't be read: {error.strerror}"
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        return f"its receipt is damaged: {error}"


def forget(folder: Path) -> None:
    """Remove the files beside `folder`, its receipt first: it then counts as incomplete."""
    receipt_of(folder).unlink(missing_ok=True)
    for beside in folder.parent.glob(f"{folder.name}.*.json*"):
        kind = beside.name.removeprefix(f"{folder.name}.")
        # `<digest>.2.json` and `<digest>.2.files.json` belong to another folder.
        if not kind[0].isdigit():
            beside.unlink(missing_ok=True)


def remove(folder: Path) -> None:
    """Remove a folder and the files beside it; half removed, it never counts as complete."""
    forget(folder)
    files.remove(folder)


def list_folders(parent: Path) -> list[Path]:
    """Every such folder, complete or not, oldest first."""
    try:
        found = [path for path in parent.iterdir() if path.is_dir() and not path.is_symlink()]
    except OSError:
        return []
    return sorted(found, key=lambda path: path.stat().st_mtime)
