"""Changes that processes made to their own generation, as they report them.

`services/inside/changes` writes the reports. Such changes are neither damage nor edits by hand, and
last until the next generation.
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
"""The most bytes that are read."""
CUSTOM_NODES = "ComfyUI/custom_nodes"
Who = str | None
"""A custom node; None: other code in the process."""


@dataclass(frozen=True)
class Changes:
    """Each change, and who made it first."""

    files: Mapping[str, Who] = field(default_factory=dict)
    """Tracked files, relative to the generation."""
    heads: Mapping[tuple[str, str], Who] = field(default_factory=dict)
    """Checkout and the commit that it moved to."""
    led: Mapping[str, Who] = field(default_factory=dict)
    """Checkouts in which a git command ran that may have moved them."""
    gone: Mapping[str, Who] = field(default_factory=dict)
    """Names that were removed from site-packages."""
    new: Mapping[str, Who] = field(default_factory=dict)
    """dist-info folders that were added."""
    nodes: Mapping[str, Who] = field(default_factory=dict)
    """Names that were added to custom_nodes."""

    def since(self, earlier: Changes) -> Changes:
        """The changes that `earlier` doesn't have."""
        return Changes(
            **{
                kind: {key: who for key, who in found.items() if key not in vars(earlier)[kind]}
                for kind, found in vars(self).items()
            }
        )

    @property
    def packages(self) -> set[str]:
        """The packages that were added."""
        return {environments.named(dist_info)[0] for dist_info in self.new}

    def moved(self, place: str, head: str | None) -> bool:
        """Whether a process moved a checkout to this commit, or may have."""
        return (place, head or "") in self.heads or (head is not None and place in self.led)

    def strays(self, place: str) -> bool:
        """Whether a checkout is, or may be, at a commit that a process chose."""
        return place in self.led or any(each == place for each, _ in self.heads)


def file_of(generation: Path) -> Path:
    return generation.with_name(f"{generation.name}.changes.jsonl")


def add(generation: Path, pack: Who, **entry: object) -> None:
    """Add a report, in the format of the processes."""
    with file_of(generation).open("a") as file:
        file.write(json.dumps({"pack": pack, **entry}, sort_keys=True) + "\n")


def owner(place: str) -> Who:
    """The custom node of a file or checkout; None for ComfyUI's own."""
    inside = place.removeprefix(f"{CUSTOM_NODES}/")
    return inside.partition("/")[0] if inside != place else None


def read(generation: Path) -> Changes:
    """All reported changes; skips damaged lines."""
    changes = Changes({}, {}, {}, {}, {}, {})
    try:
        with files.open_regular(file_of(generation)) as file:
            content = file.read(LONGEST)
    except OSError:
        return changes
    for line in content.splitlines():
        try:
            entry = json.loads(line)
            _add_entry(changes, entry, entry["pack"] if isinstance(entry["pack"], str) else None)
        except (LookupError, TypeError, ValueError, RecursionError):
            continue
    return changes


def _add_entry(changes: Any, entry: Mapping[str, Any], who: Who) -> None:
    if "file" in entry:
        changes.files.setdefault(str(entry["file"]), who)
    if "head" in entry:
        changes.heads.setdefault((str(entry["place"]), str(entry["head"])), who)
    if "git" in entry:
        changes.led.setdefault(str(entry["git"]), who)
    for kind in ("gone", "new", "nodes"):
        for name in entry.get(kind) or ():
            getattr(changes, kind).setdefault(str(name), who)
