"""Damage of a generation that `doit verify` found, recorded beside it: the next one replaces it."""

from __future__ import annotations

from pathlib import Path

from ..system import files


def read(folder: Path) -> str | None:
    """The recorded damage; None without any."""
    return files.read_receipt(_file(folder), damage=str).get("damage")


def write(folder: Path, damage: str | None) -> None:
    """Record the result of a check; without damage, remove the record."""
    if damage:
        files.write_receipt(_file(folder), {"damage": damage})
    else:
        files.remove(_file(folder))


def _file(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.damage.json")
