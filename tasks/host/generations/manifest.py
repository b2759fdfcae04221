"""The tracked files and commits of a generation, and changes by a person or its own processes."""

from __future__ import annotations

import errno
import os
import stat as stat_bits
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..repositories import git
from ..storage import digest_folders
from ..system import files
from ..system.failure import Failure
from . import found_damage, reported_changes

Stamp = list[int] | None
"""Size and modification time (ns) of a file; None: it is missing."""
Differing = dict[str, dict[str, Stamp]]
"""Checkout → its tracked files that changed → each one's current stamp."""


def damage(folder: Path, receipt: dict[str, Any], differ: Differing | None = None) -> str | None:
    """What was moved or removed by hand, or what `doit verify` found; None if nothing. Untracked
    files and changes by the generation's own processes are no damage."""
    if found := found_damage.read(folder):
        return found
    changes = reported_changes.read(folder)
    for place, commit in receipt["heads"].items():
        head = git.head(folder / place)
        if head != commit and not changes.moved(place, head):
            return f"{place} is at {head or 'no commit'}"
    for place, target in receipt["links"].items():
        if files.link_target(folder / place) != target:
            return f"{place} doesn't point at {target}"
    if not (folder / "environment").exists():
        return "its environment is gone"
    for place, name in gone(folder, differ):
        return f"{place}/{name} is missing"
    return None


def hidden_damage(folder: Path, receipt: Mapping[str, Any]) -> str | None:
    """What `damage` doesn't see, found by reading every file; None if nothing.

    A file whose size or time changed was edited, by a person or by a process.
    """
    changes, stamps = reported_changes.read(folder), recorded(folder)
    for place in receipt["heads"]:
        if reason := git.unreadable(folder / place):
            return f"git can't read {place}: {reason}"
        if changes.strays(place):
            continue
        for name, is_gone in git.differing(folder / place):
            known = stamps.get(place, {})
            if not is_gone and name in known and not differs(folder, place, name, stamps):
                return f"{place}/{name} isn't what was installed"
    return None


def differing(folder: Path, stamps: Mapping[str, Any] | None = None) -> Differing:
    """The tracked files that changed since `stamps`, by default the recorded ones.

    Every run checks thousands of files. Raises AttributeError for a damaged receipt.
    """
    stamps = files.read_receipt(tracked(folder)) if stamps is None else stamps
    return {
        place: {
            name: current
            for name, stamp in recorded_stamps.items()
            if (current := _stamp(f"{folder}/{place}/{name}")) != stamp
        }
        for place, recorded_stamps in stamps.items()
    }


def gone(folder: Path, differ: Differing | None = None) -> Iterator[tuple[str, str]]:
    """Checkout and name of each tracked file that was removed by hand, or is none any more."""
    changes = reported_changes.read(folder)
    for place, names in (differing(folder) if differ is None else differ).items():
        for name, stamp in () if changes.strays(place) else names.items():
            is_gone = stamp is None or _is_no_file(folder / place / name)
            if is_gone and f"{place}/{name}" not in changes.files:
                yield place, name


def _is_no_file(path: Path) -> bool:
    """Whether something lies where a tracked file belongs that nobody can have made of it: a link
    to itself, a pipe, a folder that isn't a submodule's, which is empty or a repository."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        return error.errno == errno.ELOOP
    if stat_bits.S_ISDIR(mode) and not path.is_symlink():
        return any(path.iterdir()) and not os.path.lexists(path / ".git")
    return not (stat_bits.S_ISREG(mode) or stat_bits.S_ISDIR(mode))


def intact(folder: Path, receipt: Mapping[str, Any], place: str) -> bool:
    """Whether a checkout is at its recorded commit with all its files."""
    if place not in receipt["heads"]:
        return True
    try:
        incomplete = {where for where, _ in gone(folder)}
    except (AttributeError, TypeError):
        return False  # The receipt is damaged.
    return place not in incomplete and git.head(folder / place) == receipt["heads"][place]


def edited(folder: Path, differ: Differing | None = None) -> dict[Path, list[str]]:
    """Checkout → its tracked files that were edited by hand.

    Runs git only where sizes or times differ, because this is checked on every run.
    """
    changes = reported_changes.read(folder)
    by_hand = {}
    differ = differing(folder, recorded(folder)) if differ is None else differ
    for place, names in differ.items():
        others = {name for name in names if f"{place}/{name}" not in changes.files}
        if others:
            top = folder / place
            found = [name for name in git.edited(top) if name in others]
            by_hand[top] = [name for name in found if not _is_no_file(top / name)]
    return {checkout: names for checkout, names in by_hand.items() if names}


def checkout_of(path: str, checkouts: Collection[str]) -> str:
    """The checkout of a generation that contains a file."""
    node = f"{reported_changes.CUSTOM_NODES}/{reported_changes.owner(path)}"
    return node if node in checkouts else "ComfyUI"


def untracked(folder: Path, place: str) -> list[str]:
    """The untracked files of a checkout, as git names them: nested repositories end in `/`.

    Where git can't read its repository, the recorded tracked files tell. Raises Failure without
    either.
    """
    try:
        return git.untracked(folder / place)
    except Failure:
        known = recorded(folder)
        if place not in known:
            raise
    tracked_files = {f"{each}/{name}" for each, names in known.items() for name in names}
    found = []
    for top, folders, names in os.walk(folder / place):
        here = Path(top)
        nested = [name for name in folders if _is_other(folder, here / name, known)]
        found += [f"{os.path.relpath(here / name, folder / place)}/" for name in nested]
        links = [name for name in folders if (here / name).is_symlink()]
        found += [
            os.path.relpath(here / name, folder / place)
            for name in (*names, *links)
            if os.path.relpath(here / name, folder) not in tracked_files
        ]
        folders[:] = sorted({*folders} - {*nested, *links, ".git"})
    return found


def _is_other(folder: Path, path: Path, known: Collection[str]) -> bool:
    """Whether a folder in a checkout is a repository of its own."""
    return os.path.relpath(path, folder) in known or os.path.lexists(path / ".git")


def rewritten(folder: Path) -> dict[str, list[str]]:
    """Checkout → its existing tracked files that the generation's own processes rewrote."""
    changes = reported_changes.read(folder)
    checkouts = recorded(folder)
    names: dict[str, list[str]] = {}
    for path in sorted(changes.files):
        place = checkout_of(path, checkouts)
        if os.path.lexists(folder / path):
            names.setdefault(place, []).append(path.removeprefix(f"{place}/"))
    for place in filter(changes.strays, [*names]):
        # Files that came with another commit were not rewritten.
        names[place] = sorted({*names[place]} & {*git.edited(folder / place)})
    return names


def stamp(folder: Path, *places: str) -> None:
    """Record the stamps of the tracked files of these checkouts, by default of all."""
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
    """The recorded stamps, without damaged entries."""
    return entries(tracked(folder))


def entries(receipt: Path) -> dict[str, dict[str, Any]]:
    """The stamps in a receipt, without damaged entries."""
    content = files.read_receipt(receipt)
    return {place: stamps for place, stamps in content.items() if isinstance(stamps, dict)}


def tracked(folder: Path) -> Path:
    """The receipt of stamps: checkout → file → size, time (ns)."""
    return folder.with_name(f"{folder.name}.files.json")


@dataclass(frozen=True)
class Watch:
    """The state of a generation before one of its processes starts."""

    folder: Path
    heads: Mapping[str, str | None]
    stamps: Mapping[str, Mapping[str, Stamp]]
    own: reported_changes.Changes
    """What was reported before."""

    def end(self) -> None:
        """Report the changes since then that no process has reported."""
        reported = reported_changes.read(self.folder)
        for place, head in self.heads.items():
            current = git.head(self.folder / place)
            if current != head and not reported.moved(place, current):
                node = reported_changes.owner(place)
                reported_changes.add(self.folder, node, place=place, head=current or "")
        reported = reported_changes.read(self.folder)
        for place, names in differing(self.folder, self.stamps).items():
            for path in () if reported.strays(place) else (f"{place}/{name}" for name in names):
                if path not in reported.files:
                    reported_changes.add(self.folder, reported_changes.owner(path), file=path)


def watch(folder: Path) -> Watch:
    """Record the state of a generation before one of its processes starts."""
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
    """Whether a tracked file changed since the generation was made."""
    return _stamp(f"{folder}/{place}/{name}") != stamps.get(place, {}).get(name)


def _stamp(path: Path | str) -> Stamp:
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]
