"""What a generation is made of, and what was done to it: by a person, or by its own processes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..repositories import git
from ..storage import digest_folders
from ..system import files
from . import reported_changes

Stamp = list[int] | None
"""Size and time (ns) of a file; None: it isn't there."""
Differing = dict[str, dict[str, Stamp]]


def damage(folder: Path, receipt: dict[str, Any], differ: Differing | None = None) -> str | None:
    """What was moved or removed by hand; untracked files are no damage, nor is what its
    own processes did."""
    own = reported_changes.read(folder)
    for place, commit in receipt["heads"].items():
        head = git.head(folder / place)
        if head != commit and not own.moved(place, head):
            return f"{place} is at {head or 'no commit'}"
    for place, target in receipt["links"].items():
        if files.link_target(folder / place) != target:
            return f"{place} doesn't point at {target}"
    if not (folder / "environment").exists():
        return "its environment is gone"
    for place, name in gone(folder, differ):
        return f"{place}/{name} is missing"
    return None


def differing(folder: Path, stamps: Mapping[str, Any] | None = None) -> Differing:
    """Checkout → its tracked files that are not as they were, each with its stamp now.

    There are thousands, and every run looks at them. Raises AttributeError for a damaged receipt.
    """
    found: Differing = {}
    stamps = files.read_receipt(tracked(folder)) if stamps is None else stamps
    for place, before in stamps.items():
        top = f"{folder}/{place}/"
        now = ((name, _stamp(top + name), stamp) for name, stamp in before.items())
        found[place] = {name: there for name, there, stamp in now if there != stamp}
    return found


def gone(folder: Path, differ: Differing | None = None) -> Iterator[tuple[str, str]]:
    """Each tracked file that was removed by hand, with the checkout that it is missing from."""
    own = reported_changes.read(folder)
    for place, names in (differing(folder) if differ is None else differ).items():
        for name, there in () if own.strays(place) else names.items():
            if there is None and f"{place}/{name}" not in own.files:
                yield place, name


def intact(folder: Path, receipt: Mapping[str, Any], place: str) -> bool:
    """Whether no checkout was moved since the generation was made, and no file of it removed."""
    if place not in receipt["heads"]:
        return True
    try:
        away = {where for where, _ in gone(folder)}
    except (AttributeError, TypeError):
        return False  # Its receipt is damaged.
    return place not in away and git.head(folder / place) == receipt["heads"][place]


def edited(folder: Path, differ: Differing | None = None) -> dict[Path, list[str]]:
    """Tracked files of a generation that were edited by hand, by the checkout they are in.

    Sizes and times come first, since this runs on every run; git is asked only where they differ.
    """
    own = reported_changes.read(folder)
    found = {}
    differ = differing(folder, recorded(folder)) if differ is None else differ
    for place, names in differ.items():
        top = folder / place
        others = {name for name in names if f"{place}/{name}" not in own.files}
        if others:
            found[top] = [name for name in git.edited(top) if name in others]
    return {top: names for top, names in found.items() if names}


def rewritten(folder: Path) -> dict[str, list[str]]:
    """Checkout → its tracked files that its own processes rewrote and that are there."""
    own = reported_changes.read(folder)
    places = recorded(folder)
    found: dict[str, list[str]] = {}
    for path in sorted(own.files):
        place = f"{reported_changes.CUSTOM_NODES}/{reported_changes.owner(path)}"
        place = place if place in places else "ComfyUI"
        if os.path.lexists(folder / path):
            found.setdefault(place, []).append(path.removeprefix(f"{place}/"))
    for place in filter(own.strays, [*found]):
        # What came with another commit was not written here.
        found[place] = sorted({*found[place]} & {*git.edited(folder / place)})
    return found


def stamp(folder: Path, *places: str) -> None:
    """Take down sizes and times of tracked files, for `edited`: of all checkouts, or of these."""
    receipt = digest_folders.read(folder)
    elsewhere = ("models/", *(f"custom_nodes/{name}/" for name in receipt["nodes"]))
    stamps = files.read_receipt(tracked(folder)) if places else {}
    for place in places or receipt["heads"]:
        stamps[place] = {
            name: _stamp(folder / place / name)
            for name in git.tracked(folder / place)
            if not (place == "ComfyUI" and name.startswith(elsewhere))
        }
    files.write_receipt(tracked(folder), stamps)


def recorded(folder: Path) -> dict[str, dict[str, Any]]:
    """The receipt's content, without what can't be read of it."""
    found = files.read_receipt(tracked(folder)).items()
    return {place: stamps for place, stamps in found if isinstance(stamps, dict)}


def tracked(folder: Path) -> Path:
    """The receipt of sizes and times: checkout → file → size, time (ns)."""
    return folder.with_name(f"{folder.name}.files.json")


@dataclass(frozen=True)
class Watch:
    """A generation before a process of it was started."""

    folder: Path
    heads: Mapping[str, str | None]
    stamps: Mapping[str, Mapping[str, Stamp]]
    own: reported_changes.Changes

    def end(self) -> None:
        """Note whatever changed since and no process told: it was one of theirs all the same."""
        told = reported_changes.read(self.folder)
        for place, head in self.heads.items():
            now = git.head(self.folder / place)
            if now != head and not told.moved(place, now):
                reported_changes.add(
                    self.folder, reported_changes.owner(place), place=place, head=now or ""
                )
        told = reported_changes.read(self.folder)
        for place, stamps in self.stamps.items():
            if not told.strays(place):
                for name in differing(self.folder, {place: stamps})[place]:
                    if f"{place}/{name}" not in told.files:
                        path = f"{place}/{name}"
                        reported_changes.add(self.folder, reported_changes.owner(path), file=path)


def watch(folder: Path) -> Watch:
    """Take down what a generation is like before something of it is run."""
    heads = digest_folders.read(folder)["heads"]
    if recorded(folder).keys() != heads.keys():
        stamp(folder)
    return Watch(
        folder,
        {place: git.head(folder / place) for place in heads},
        {
            place: {name: _stamp(f"{folder}/{place}/{name}") for name in stamps}
            for place, stamps in recorded(folder).items()
        },
        reported_changes.read(folder),
    )


def differs(folder: Path, place: str, name: str, stamps: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether a tracked file is another one than when the generation was made."""
    return _stamp(f"{folder}/{place}/{name}") != stamps.get(place, {}).get(name)


def _stamp(path: Path | str) -> Stamp:
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]
