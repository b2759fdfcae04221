"""What a generation is made of, and what was done to it by hand."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tasks.host import files, git, made


def damage(folder: Path, receipt: dict[str, Any]) -> str | None:
    """What was moved or removed by hand; files that nobody tracks are no damage."""
    for place, commit in receipt["heads"].items():
        if git.head(folder / place) != commit:
            return f"{place} is at {git.head(folder / place) or 'no commit'}"
    for place, target in receipt["links"].items():
        if files.link_target(folder / place) != target:
            return f"{place} doesn't point at {target}"
    if not (folder / "environment").exists():
        return "its environment is gone"
    for place, name in gone(folder):
        return f"{place}/{name} is missing"
    return None


def gone(folder: Path) -> Iterator[tuple[str, str]]:
    """Each tracked file that is missing, with the checkout that it is missing from."""
    for place, stamps in files.read_receipt(tracked(folder)).items():
        for name in stamps:
            if not os.path.lexists(folder / place / name):
                yield place, name


def edited(folder: Path) -> dict[Path, list[str]]:
    """Tracked files of a generation that were edited by hand, by the checkout they are in.

    Sizes and times come first, since this runs on every run; git is asked only where they differ.
    """
    found = {}
    for place, stamps in files.read_receipt(tracked(folder)).items():
        top = folder / place
        if any(_stamp(top / name) != stamp for name, stamp in stamps.items()):
            found[top] = git.edited(top)
    return {top: names for top, names in found.items() if names}


def stamp(folder: Path) -> None:
    """Take down sizes and times of tracked files, for `edited`."""
    receipt = made.read(folder)
    elsewhere = ("models/", *(f"custom_nodes/{name}/" for name in receipt["nodes"]))
    stamps = {
        place: {
            name: _stamp(folder / place / name)
            for name in git.tracked(folder / place)
            if not (place == "ComfyUI" and name.startswith(elsewhere))
        }
        for place in receipt["heads"]
    }
    files.write_receipt(tracked(folder), stamps)


def tracked(folder: Path) -> Path:
    """The receipt of sizes and times: checkout → file → size, time (ns)."""
    return folder.with_name(f"{folder.name}.files.json")


def _stamp(path: Path) -> list[int] | None:
    try:
        status = path.lstat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]
