"""The generations of a machine: which can be gone back to, and how each differs from what runs."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...engine.messages import describe_move
from ...engine.run import Run
from ...generation import last_good
from ...generation import stage as generation
from ...generation.last_good import Refusal
from ...host.comfyui import started_with
from ...host.generations import contents, kept_generations
from ...host.generations.contents import Changes, Contents, Move
from ...host.pm2 import apps
from ...host.storage import digest_folders, disk
from ...host.system.failure import Failure
from ...spec.layout import Layout

TELLING = re.compile(r"torch|torchvision|torchaudio|numpy|transformers|xformers|diffusers")
"""Packages that a line about many names; the others it counts."""


@dataclass(frozen=True)
class Entry:
    """One generation, seen from the current one."""

    name: str
    number: int | None
    """How it is called; None: it was never good."""
    contents: Contents
    current: bool
    """Whether instances start on it."""
    running: list[str]
    """The instances that run on it."""
    good_at: float | None
    """When it was last recorded as good, in seconds since the epoch."""
    last_good: bool
    """Whether it is the newest good one."""
    refusal: Refusal | None
    """Why machine.yaml asks for it, and the machine doesn't run it."""
    selectable: bool
    """Whether `doit rollback` can go there."""
    size: int | None
    """The bytes that its removal would free; None: not measured yet."""
    changes: Changes
    """What going there would change."""


def read(run: Run) -> list[Entry]:
    """The good generations that are there, the newest first; before them what was never good:
    the current one, and the one that was refused."""
    layout, applying = run.layout, last_good.refusal(run)
    numbers, running = kept_generations.numbers(layout), _running(layout)
    existing = {path.name for path in digest_folders.list_folders(layout.generations)}
    asked = {applying.generation} if applying else set()
    names = {*kept_generations.good(layout), layout.generation.name, *asked, *_wanted(run)}
    current = contents.read(layout.generation)
    newest = kept_generations.good_and_there(layout)[-1:]
    measured = disk.last_measured(layout)
    entries = []
    for name in names & existing:
        found = contents.read(layout.generations / name)
        is_current = name == layout.generation.name
        refused = applying if name in asked and not is_current else None
        entries.append(
            Entry(
                name=name,
                number=numbers.get(name),
                contents=found,
                current=is_current,
                running=running.get(name, []),
                good_at=_good_at(layout, name) if name in numbers else None,
                last_good=[name] == newest,
                refusal=refused,
                selectable=not is_current and not refused and last_good.is_whole(layout, name),
                size=measured.freed_by(layout, name) if name in measured.generations else None,
                changes=contents.compare(current, found),
            )
        )
    return sorted(entries, key=lambda each: (each.number is not None, -(each.number or 0)))


def _wanted(run: Run) -> set[str]:
    try:
        return {generation.folder_of(run).name}
    except Failure:
        return set()


def _running(layout: Layout) -> dict[str, list[str]]:
    """Generation → the instances that run on it."""
    found: dict[str, list[str]] = {}
    for app in apps.running(layout.workspace, None):
        folder = started_with.of(app.pid).generation if apps.is_instance(app.name) else None
        if folder:
            found.setdefault(folder.name, []).append(app.name)
    return found


def _good_at(layout: Layout, name: str) -> float | None:
    """It is recorded anew with each change of what instances run with."""
    try:
        return (layout.good(name) / layout.packages.name).stat().st_mtime
    except OSError:
        return None


def describe(changes: Changes) -> list[str]:
    """What is different, one line each: ComfyUI, every node, then the packages in one line."""
    lines = [_line(move) for move in (*changes.comfyui, *changes.nodes)]
    telling = [move for move in changes.packages if TELLING.fullmatch(move.name)]
    others = len(changes.packages) - len(telling)
    words = [_line(move) for move in telling]
    if others:
        kind = "package" if others == 1 else "packages"
        words.append(f"{others} {'more ' if words else ''}{kind}")
    return [*lines, *([", ".join(words)] if words else [])]


def _line(move: Move) -> str:
    return describe_move(move.name, move.before, move.after)


def summary(changes: Changes) -> str:
    """The same in one line."""
    return ", ".join(describe(changes)) or "the same versions, with other settings"


def when(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))


def title(entry: Entry) -> str:
    """The generation by its number and ComfyUI's version."""
    number = f"generation {entry.number}" if entry.number else "a generation that was never good"
    return f"{number} (ComfyUI {entry.contents.comfyui})"


def of(entries: Sequence[Entry], folder: Path) -> Entry:
    """The entry of a generation's folder."""
    return next(each for each in entries if each.name == folder.name)
