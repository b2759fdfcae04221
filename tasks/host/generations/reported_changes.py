"""What processes changed in the generation that they run from (`services/inside/changes`).

That is neither drift nor an edit by hand: it stays until the next generation.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..python import environments
from ..system import files

LONGEST = 8 << 20
"""Bytes that are read."""
CUSTOM_NODES = "ComfyUI/custom_nodes"
Who = str | None
"""A custom node; None: something that ran in the process."""


@dataclass(frozen=True)
class Changes:
    """Each with who did it first."""

    files: Mapping[str, Who] = field(default_factory=dict)
    """Tracked files, relative to the generation."""
    heads: Mapping[tuple[str, str], Who] = field(default_factory=dict)
    """Checkout and the commit that it was moved to."""
    led: Mapping[str, Who] = field(default_factory=dict)
    """Checkouts in which git was run so that it may have moved them."""
    gone: Mapping[str, Who] = field(default_factory=dict)
    """Names that went from site-packages."""
    new: Mapping[str, Who] = field(default_factory=dict)
    """dist-info folders that came."""
    nodes: Mapping[str, Who] = field(default_factory=dict)
    """What came into custom_nodes."""

    def since(self, before: Changes) -> Changes:
        """What was not noted before."""
        told = vars(before)
        return Changes(
            **{
                kind: {key: who for key, who in found.items() if key not in told[kind]}
                for kind, found in vars(self).items()
            }
        )

    @property
    def packages(self) -> set[str]:
        """The packages that came."""
        return {environments.named(dist_info)[0] for dist_info in self.new}

    def moved(self, place: str, head: str | None) -> bool:
        """Whether a process moved a checkout to where it is, or out of git's sight."""
        return (place, head or "") in self.heads or (head is not None and place in self.led)

    def strays(self, place: str) -> bool:
        """Whether a checkout is, or may be, at a commit that a process chose."""
        return place in self.led or any(each == place for each, _ in self.heads)


def file_of(generation: Path) -> Path:
    return generation.with_name(f"{generation.name}.changes.jsonl")


def add(generation: Path, pack: Who, **entry: object) -> None:
    """Note one more, as the process itself does."""
    with file_of(generation).open("a") as file:
        file.write(json.dumps({"pack": pack, **entry}, sort_keys=True) + "\n")


def owner(place: str) -> Who:
    """The custom node that a file or checkout of a generation is of; None: ComfyUI's own."""
    inside = place.removeprefix(f"{CUSTOM_NODES}/")
    return inside.partition("/")[0] if inside != place else None


def read(generation: Path) -> Changes:
    """All that was noted; a line that can't be read is none."""
    found = Changes({}, {}, {}, {}, {}, {})
    try:
        with files.open_regular(file_of(generation)) as file:
            content = file.read(LONGEST)
    except OSError:
        return found
    for line in content.splitlines():
        try:
            entry = json.loads(line)
            _take(found, entry, entry["pack"] if isinstance(entry["pack"], str) else None)
        except (LookupError, TypeError, ValueError, RecursionError):
            continue
    return found


def _take(found: Any, entry: Mapping[str, Any], who: Who) -> None:
    if "file" in entry:
        found.files.setdefault(str(entry["file"]), who)
    if "head" in entry:
        found.heads.setdefault((str(entry["place"]), str(entry["head"])), who)
    if "git" in entry:
        found.led.setdefault(str(entry["git"]), who)
    for kind in ("gone", "new", "nodes"):
        for name in entry.get(kind) or ():
            getattr(found, kind).setdefault(str(name), who)
