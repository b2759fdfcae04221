"""Where ComfyUI and its custom nodes in an installation come from."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..host.comfyui import installations, source_facts
from ..host.comfyui.installations import Checkout
from ..host.repositories import git, remotes
from ..host.system import files
from ..host.system.failure import Failure
from ..spec.fields import check_name
from ..spec.problems import shown

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SHOWN = 5
"""How many edited files a comment names."""
TRACKING = ".tracking"
"""The file in which ComfyUI-Manager lists what it installed from the registry."""
OWN_FILES = ("websocket_image_save.py", "example_node.py.example")
"""ComfyUI's own in custom_nodes."""


@dataclass(frozen=True)
class Origin:
    """A repository's commit, a version of the registry, or (neither) the folder itself."""

    name: str
    """Its folder in custom_nodes, as machine.yaml may have it."""
    folder: Path
    url: str = ""
    ref: str = ""
    commit: str = ""
    id: str = ""
    version: str = ""
    edits: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    """What says so, and what to know."""

    @property
    def is_folder(self) -> bool:
        return not (self.url or self.id)


def of_comfyui(folder: Path, usual: str) -> Origin:
    """`usual` is the repository of a ComfyUI that is no clone."""
    found = installations.checkout(folder)
    if found and _is_published(found):
        return replace(_cloned(folder, found), name="ComfyUI")
    version = source_facts.version_of(folder)
    if git.head(folder) is None and version:
        tag = f"v{version}"
        try:
            commit = remotes.resolve(usual, tag)
        except Failure as failure:
            note = f"No clone; its version is {version}, and {shown(str(failure), 200)}"
            return Origin("ComfyUI", folder, notes=(note, "So the folder itself is copied."))
        note = f"No clone: {tag} is the release of its version; what was changed in it isn't known."
        return Origin("ComfyUI", folder, usual, tag, commit, notes=(note,))
    return Origin("ComfyUI", folder, notes=(_why_folder(found, folder), "It is copied."))


def of_node(folder: Path) -> Origin:
    found = installations.checkout(folder)
    if found and _is_published(found):
        return _cloned(folder, found)
    if git.head(folder) is not None:
        return Origin(_name(folder), folder, notes=(_why_folder(found, folder), *_linked()))
    project = _project(folder)
    about, name, version = "", str(project.get("name", "")), str(project.get("version", ""))
    if name and version:
        if (folder / TRACKING).is_file():
            note = f"Installed from the registry: its {TRACKING} and pyproject.toml say so."
            return Origin(_name(folder), folder, id=name, version=version, notes=(note,))
        about = f" Its pyproject.toml calls it {shown(name, 100)} {shown(version, 50)}."
    return Origin(_name(folder), folder, notes=(f"Without a repository.{about}", *_linked()))


def turned_off(nodes: Path) -> Iterator[Path]:
    """The custom nodes that are turned off."""
    for pattern in ("*.disabled", ".disabled/*"):
        yield from sorted(path for path in nodes.glob(pattern) if path.name != "__pycache__")


def single_files(nodes: Path) -> Iterator[Path]:
    """Custom nodes that are one file, but for ComfyUI's own."""
    yield from sorted(path for path in nodes.glob("*.py") if path.name not in OWN_FILES)


def _cloned(folder: Path, found: Checkout) -> Origin:
    notes = []
    if found.edits:
        more = f" and {len(found.edits) - SHOWN} more" if len(found.edits) > SHOWN else ""
        names = ", ".join(shown(name, 100) for name in found.edits[:SHOWN])
        notes.append(f"Edited there: {names}{more}. Its repository doesn't have")
        notes.append("the edits, so they are missing here. To keep them, write, instead of it,")
        notes.append(f"path: {shown(str(folder), 500)}")
    return Origin(
        _name(folder), folder, found.url, found.ref, found.commit,
        edits=found.edits, notes=tuple(notes),
    )  # fmt: skip


def _name(folder: Path) -> str:
    """Its name, with _ for what machine.yaml doesn't allow in one."""
    try:
        return check_name(folder.name)
    except ValueError:
        return f"node-{re.sub(r'[^A-Za-z0-9_-]', '_', folder.name)}"[:90]


def _is_published(found: Checkout) -> bool:
    """Whether others can get the commit; where the clone doesn't know, its repository is asked."""
    if found.is_published:
        return True
    try:
        remotes.resolve(found.url, found.commit)
    except Failure:
        return False
    return True


def _why_folder(found: Checkout | None, folder: Path) -> str:
    if found:
        return f"Its commit {found.commit[:12]} isn't known to be in {shown(found.url, 300)}."
    return "Its repository has no address that others could clone."


def _linked() -> tuple[str, ...]:
    return ("Linked, so it has to stay there.",)


def _project(folder: Path) -> dict[str, Any]:
    """The [project] table of its pyproject.toml; empty without one."""
    try:
        found = tomllib.loads(files.read_bytes(folder / "pyproject.toml").decode()).get("project")
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
