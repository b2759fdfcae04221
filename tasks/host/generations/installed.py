"""What is installed against what is wanted: commits, packages and imports, item by item.

Reads only, and nothing that it finds on disk makes it raise: what is missing or damaged is a
reason. A look every second or few costs some milliseconds, since what didn't change isn't read.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...spec import Lock, Pin
from ...spec.layout import Layout
from ..comfyui import load_result
from ..comfyui.load_result import Result
from ..python import environments
from ..python.environments import Packages, compare
from ..repositories import git
from ..repositories.sources import Source
from ..storage import digest_folders
from ..system import files
from ..system.stat_cache import while_unchanged
from . import manifest, reported_changes
from .left_out_nodes import left_out, node_receipt

COMFYUI = "ComfyUI"
NOT_YET = "it isn't installed yet"


@dataclass(frozen=True)
class WantedNode:
    """ComfyUI or a custom node, as machine.yaml has it: `url` at `ref`, or a local `path`."""

    name: str
    url: str | None = None
    ref: str | None = None
    path: str | None = None
    optional: bool = False


@dataclass(frozen=True)
class Part:
    """What became of one of them; `reason` is a sentence that says "it"."""

    name: str
    ok: bool
    reason: str = ""
    wanted: str | None = None
    commit: str | None = None
    imported: bool | None = None
    """In the build's validation; None: not tried, or not to be proved there."""
    optional: bool = False


@dataclass(frozen=True)
class Installed:
    """All of it. `ok` when everything required is."""

    ok: bool
    reason: str
    """The first thing that is wrong."""
    degraded: tuple[str, ...]
    """What is wrong beside that and stops nothing: with optional nodes, or not to be proved."""
    generation: str | None
    comfyui: Part
    nodes: tuple[Part, ...]
    packages: Packages


@dataclass(frozen=True)
class _Generation:
    """What a look found out about the current generation as a whole."""

    folder: Path
    receipt: Mapping[str, Any]
    results: Mapping[str, Result]
    unsure: frozenset[str]
    validated: bool
    damage: Mapping[str, str]
    """Place in it → what was done to it by hand."""


def look(layout: Layout, lock: Lock, comfyui: WantedNode, nodes: Sequence[WantedNode]) -> Installed:
    """Compare the current generation with the lock, or where that isn't of what is wanted (an
    entry was edited, or the environment overrides it), with what the last run noted."""
    found = _generation(layout)
    away = left_out(layout, [node.name for node in nodes if node.optional])
    own = _comfyui(layout, lock, comfyui, found)
    parts = tuple(_node(layout, lock, node, away.get(node.name), found) for node in nodes)
    packages = _packages(layout, lock, found)
    titled = {COMFYUI: own, **{f"custom node {part.name}": part for part in parts}}
    wrong = [f"{t}: {p.reason}" for t, p in titled.items() if not (p.ok or p.optional)]
    if not packages.ok:
        wrong.append(f"Python packages: {packages.reason}")
    if found is None:
        wrong = ["nothing is installed yet"]
    elif not found.validated:
        wrong.append(f"whether the custom nodes of {found.folder.name} import was not tried")
    lesser = [f"{t}: {p.reason}" for t, p in titled.items() if p.reason and (p.ok or p.optional)]
    return Installed(
        ok=not wrong,
        reason=next(iter(wrong), ""),
        degraded=(*lesser, *(_builtin(found) if found else ())),
        generation=found.folder.name if found else None,
        comfyui=own,
        nodes=parts,
        packages=packages,
    )


def _generation(layout: Layout) -> _Generation | None:
    folder = Path(os.path.realpath(layout.current))
    if not os.path.islink(layout.current) or not os.path.isdir(folder / COMFYUI):  # noqa: PTH112, PTH114
        return None
    receipt = _receipt(digest_folders.receipt_of(folder))
    if not all(isinstance(receipt.get(key), dict) for key in ("heads", "links", "scripts")):
        receipt = {"heads": {}, "links": {}, "scripts": {}}
    beside = load_result.receipt_of(folder)
    return _Generation(
        folder=folder,
        receipt=receipt,
        results=_results(folder, beside),
        unsure=_unsure(folder, beside),
        validated=os.path.exists(beside),  # noqa: PTH110
        damage=_damage(folder, receipt),
    )


_receipt = while_unchanged(files.read_receipt)
_results = while_unchanged(load_result.read)
_unsure = while_unchanged(load_result.unproved)
_noted = while_unchanged(environments.noted)
_own = while_unchanged(reported_changes.read)


def _damage(folder: Path, receipt: Mapping[str, Any]) -> dict[str, str]:
    """Links and tracked files, by the node's place or the first part of another."""
    tracked = manifest.tracked(folder)
    folders = [f"{folder}/{each}" for each in _tracked_folders(tracked)]
    found = dict(_gone(folder, tracked, reported_changes.file_of(folder), *folders))
    for place, target in receipt["links"].items():
        if files.link_target(folder / place) != target:
            owner, inside = _owner(place)
            what = f"its {inside}" if inside else "its link"
            found.setdefault(owner, f"{what} doesn't point at {target}")
    return found


def _owner(place: str) -> tuple[str, str]:
    """The part that a place belongs to, and the rest of it."""
    names = place.split("/")
    depth = 3 if names[1:2] == ["custom_nodes"] else 1
    return "/".join(names[:depth]), "/".join(names[depth:])


@while_unchanged
def _tracked_folders(receipt: Path) -> list[str]:
    """Every folder that has a tracked file; none can go from it without its time changing."""
    found = set()
    for place, stamps in files.read_receipt(receipt).items():
        if isinstance(stamps, dict):
            found |= {f"{place}/{name}".rpartition("/")[0] for name in stamps}
    return sorted(found)


@while_unchanged
def _gone(folder: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    try:
        for place, name in manifest.gone(folder):
            found.setdefault(place, f"{name} is missing from it")
    except (AttributeError, TypeError):
        found[COMFYUI] = f"{manifest.tracked(folder).name} is damaged"
    return found


def _builtin(found: _Generation) -> list[str]:
    """What failed of ComfyUI's own."""
    return [
        f"ComfyUI's own {name} {result}"
        for name, result in found.results.items()
        if load_result.is_own(name) and result.failed
    ]


def _comfyui(layout: Layout, lock: Lock, wanted: WantedNode, found: _Generation | None) -> Part:
    commit = _wanted_commit(layout, lock.comfyui, wanted, layout.receipts / "source.json")
    if found is None:
        return Part(wanted.name, False, NOT_YET, commit)
    head = git.head(found.folder / COMFYUI)
    reason = _other_commit(found, COMFYUI, commit, head) or found.damage.get(COMFYUI, "")
    imported = True if found.validated else None
    return Part(wanted.name, not reason, reason, commit, head, imported)


def _node(
    layout: Layout, lock: Lock, wanted: WantedNode, away: str | None, found: _Generation | None
) -> Part:
    name, place = wanted.name, f"{COMFYUI}/custom_nodes/{wanted.name}"
    receipt = node_receipt(layout, name)
    commit = _wanted_commit(layout, lock.custom_nodes.get(name), wanted, receipt)
    if found is None or away:
        reason = f"it is left out: {away}" if away else NOT_YET
        return Part(name, False, reason, commit, optional=wanted.optional)
    if wanted.path:
        head, reason = None, _other_link(found.folder / place, wanted.path)
    else:
        head = git.head(found.folder / place)
        reason = _other_commit(found, place, commit, head)
    reason = reason or found.damage.get(place, "")
    imported, why_not = _import(found, name)
    ok = not reason and imported is not False
    return Part(name, ok, reason or why_not, commit, head, imported, wanted.optional)


def _import(found: _Generation, name: str) -> tuple[bool | None, str]:
    """Whether a node was loaded in the build, None where that isn't known; and why not."""
    result = found.results.get(name)
    if result is None or not result.failed:
        return (True if result and result.loaded else None), ""
    if name in found.unsure:
        return None, f"whether it imports can't be proved in a build: it {result}"
    return False, f"it {result}"


def _wanted_commit(
    layout: Layout, pin: Pin | None, wanted: WantedNode, receipt: Path
) -> str | None:
    """The lock's, if that is of what is wanted, else the one that the last run noted."""
    source = Source(
        name=wanted.name,
        url=wanted.url,
        path=Path(wanted.path) if wanted.path else None,
        ref=wanted.ref,
        recursive=False,
        receipt=receipt,
        layout=layout,
        locked=pin,
    )
    return source.commit


def _other_commit(found: _Generation, place: str, wanted: str | None, head: str | None) -> str:
    """What is wrong with a checkout's commit, empty if nothing."""
    own = _own(found.folder, reported_changes.file_of(found.folder))
    made_of = found.receipt["heads"].get(place)
    if made_of == wanted and own.moved(place, head):
        return ""
    if head is None:
        there = os.path.lexists(found.folder / place)
        return "its folder has no commit" if there else "it isn't in the current generation"
    if wanted is None:
        return "it was not fetched yet, or its entry changed"
    # A node's own script may have moved it, which then stays so.
    ran = str(found.receipt["scripts"].get(Path(place).name, ""))
    if head == wanted or (head == made_of and ran.startswith(wanted)):
        return ""
    return f"it is at {head[:12]}, and {wanted[:12]} is wanted"


def _other_link(link: Path, path: str) -> str:
    target = files.link_target(link)
    if target is None:
        there = os.path.lexists(link)
        return "it isn't a link to its folder" if there else "it isn't in the current generation"
    if target != path:
        return f"its link points at {target}, not at {path}"
    return "" if os.path.isdir(path) else f"{path} isn't there"  # noqa: PTH112


def _packages(layout: Layout, lock: Lock, found: _Generation | None) -> Packages:
    """Against the lock's set, unless the last run settled on another because it asked for other
    things."""
    noted = _noted(layout.packages)
    same = noted is None or (lock.python and noted.asked == lock.python.asked)
    wanted = lock.python if same else noted
    if found is None:
        return Packages(False, "they are not installed yet", len(wanted.packages) if wanted else 0)
    home = Path(os.path.realpath(found.folder / "environment"))
    packages = compare(home, wanted)
    packages = _blamed(packages, _own(found.folder, reported_changes.file_of(found.folder)))
    if packages.ok and (reason := found.damage.get("environment")):
        return replace(packages, ok=False, reason=reason)
    return packages


def _blamed(packages: Packages, own: reported_changes.Changes) -> Packages:
    """With the custom nodes that replaced packages while they were loaded."""
    who = {environments.named(each)[0]: pack for each, pack in own.gone.items() if pack}
    if not (found := who.keys() & packages.wrong.keys()):
        return packages
    wrong = {
        name: why + (f" (custom node {who[name]} replaced it)" if name in found else "")
        for name, why in packages.wrong.items()
    }
    name = min(found)
    return replace(packages, reason=f"{name} {wrong[name]}", wrong=wrong)
