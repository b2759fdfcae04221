"""Model files that are on this disk already, found by their names."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ..host.system import files
from .model_catalogue import last_part


@dataclass(frozen=True)
class OnDisk:
    """A file below a models folder."""

    folder: str
    """Its first folder there: `loras`."""
    path: Path


@dataclass(frozen=True)
class DiskModels:
    """File name, in lower case → the files of that name."""

    files: dict[str, list[OnDisk]] = field(default_factory=dict)

    def by_name(self, name: str) -> OnDisk | None:
        """A file that a workflow names, with folders and either slash; the closest of several."""
        wanted = name.replace("\\", "/").casefold()
        found = self.files.get(last_part(wanted), [])
        exact = (each for each in found if str(each.path).casefold().endswith(f"/{wanted}"))
        return next(exact, found[0] if found else None)

    def by_hash(self, name: str, sha256: str) -> OnDisk | None:
        """The file of that name with this content. Raises OSError."""
        found = self.files.get(last_part(name).casefold(), [])
        return next((each for each in found if files.file_digest(each.path) == sha256), None)


def in_folders(folders: Iterable[Path]) -> DiskModels:
    """The files below models folders; what can't be read is passed over."""
    found, seen = DiskModels(), set()
    for folder in folders:
        for place, below_place, names in os.walk(folder, followlinks=True):
            below = Path(place).relative_to(folder).parts
            # A link may lead back up.
            if os.path.realpath(place) in seen or any(part.startswith(".") for part in below):
                below_place.clear()
                continue
            seen.add(os.path.realpath(place))
            if not below:
                continue
            for name in names:
                entry = OnDisk(below[0], Path(place, name))
                found.files.setdefault(name.casefold(), []).append(entry)
    return found
