"""Compares what is installed with what is wanted: commits, packages and imports, one by one.

Reads only and never raises: missing or damaged files become reasons. It takes a few milliseconds,
because unchanged files are not read again, so it can run every few seconds.
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
    """ComfyUI or a custom node as machine.yaml declares it: `url` at `ref`, `id` of the registry
    in the version `ref`, or a local `path`."""

    name: str
    url: str | None = None
    ref: str | None = None
    path: str | None = None
    optional: bool = False
    id: str | None = None


@dataclass(frozen=True)
class Part:
    """The state of ComfyUI or a custom node; `reason` is a clause about "it"."""

    name: str
    ok: bool
    reason: str = ""
    wanted: str | None = None
    commit: str | None = None
    imported: bool | None = None
    """Whether it loaded in validation; None: not tried, or validation can't tell."""
    optional: bool = False


@dataclass(frozen=True)
class Installed:
    """The state of all parts; `ok` if all required ones are."""

    ok: bool
    reason: str
    """The first problem."""
    degraded: tuple[str, ...]
    """Problems that stop nothing: of optional nodes, or that validation can't confirm."""
    generation: str | None
    comfyui: Part
    nodes: tuple[Part, ...]
    packages: Packages


@dataclass(frozen=True)
class _Generation:
    """What is known about the current generation as a whole."""

    folder: Path
    receipt: Mapping[str, Any]
    results: Mapping[str, Result]
    unsure: frozenset[str]
    validated: bool
    damage: Mapping[str, str]
    """Part of it → what was changed by hand."""


def look(layout: Layout, lock: Lock, comfyui: WantedNode, nodes: Sequence[WantedNode]) -> Installed:
    """Compare the current generation with the lock.

    Where the lock has another request (machine.yaml changed, or the environment overrides it),
    compare it with the receipts of the last run.
    """
    current = _generation(layout)
    reasons = left_out(layout, [node.name for node in nodes if node.optional])
    core = _comfyui(layout, lock, comfyui, current)
    parts = tuple(_node(layout, lock, node, reasons.get(node.name), current) for node in nodes)
    packages = _packages(layout, lock, current)
    titled = {COMFYUI: core, **{f"custom node {part.name}": part for part in parts}}
    problems = [f"{t}: {p.reason}" for t, p in titled.items() if not (p.ok or p.optional)]
    degraded = [f"{t}: {p.reason}" for t, p in titled.items() if p.reason and (p.ok or p.optional)]
    if not packages.ok:
        problems.append(f"Python packages: {packages.reason}")
    if current is None:
        problems = ["nothing is installed yet"]
    else:
        if not current.validated:
            problems.append(
                f"whether the custom nodes of {current.folder.name} import was not tried"
            )
        degraded += [
            f"ComfyUI's own {name} {result}"
            for name, result in current.results.items()
            if load_result.is_own(name) and result.failed
        ]
    return Installed(
        ok=not problems,
        reason=next(iter(problems), ""),
        degraded=tuple(degraded),
        generation=current.folder.name if current else None,
        comfyui=core,
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
    result = load_result.receipt_of(folder)
    return _Generation(
        folder=folder,
        receipt=receipt,
        results=_results(folder, result),
        unsure=_unsure(folder, result),
        validated=os.path.exists(result),  # noqa: PTH110
        damage=_damage(folder, receipt),
    )


_receipt = while_unchanged(files.read_receipt)
_results = while_unchanged(load_result.read)
_unsure = while_unchanged(load_result.unproved)
_recorded_packages = while_unchanged(environments.noted)
_changes = while_unchanged(reported_changes.read)


def _damage(folder: Path, receipt: Mapping[str, Any]) -> dict[str, str]:
    """Part of the generation → a wrong link or missing file."""
    tracked = manifest.tracked(folder)
    folders = [f"{folder}/{each}" for each in _tracked_folders(tracked)]
    damage = dict(_missing_files(folder, tracked, reported_changes.file_of(folder), *folders))
    for place, target in receipt["links"].items():
        if files.link_target(folder / place) != target:
            names = place.split("/")
            depth = 3 if names[1:2] == ["custom_nodes"] else 1
            link = "/".join(names[depth:]) or "link"
            damage.setdefault("/".join(names[:depth]), f"its {link} doesn't point at {target}")
    return damage


@while_unchanged
def _tracked_folders(receipt: Path) -> list[str]:
    """Every folder with a tracked file; its time changes when one is removed."""
    paths = [
        f"{place}/{name}" for place, names in manifest.entries(receipt).items() for name in names
    ]
    return sorted({path.rpartition("/")[0] for path in paths})


@while_unchanged
def _missing_files(folder: Path) -> dict[str, str]:
    missing: dict[str, str] = {}
    try:
        for place, name in manifest.gone(folder):
            missing.setdefault(place, f"{name} is missing from it")
    except (AttributeError, TypeError):
        missing[COMFYUI] = f"{manifest.tracked(folder).name} is damaged"
    return missing


def _comfyui(layout: Layout, lock: Lock, wanted: WantedNode, current: _Generation | None) -> Part:
    commit = _wanted_commit(layout, lock.comfyui, wanted, layout.receipts / "source.json")
    if current is None:
        return Part(wanted.name, False, NOT_YET, commit)
    head = git.head(current.folder / COMFYUI)
    reason = _other_commit(current, COMFYUI, commit, head) or current.damage.get(COMFYUI, "")
    imported = True if current.validated else None
    return Part(wanted.name, not reason, reason, commit, head, imported)


def _node(
    layout: Layout,
    lock: Lock,
    wanted: WantedNode,
    why_left_out: str | None,
    current: _Generation | None,
) -> Part:
    name, place = wanted.name, f"{COMFYUI}/custom_nodes/{wanted.name}"
    receipt = node_receipt(layout, name)
    commit = _wanted_commit(layout, lock.custom_nodes.get(name), wanted, receipt)
    if current is None or why_left_out:
        reason = f"it is left out: {why_left_out}" if why_left_out else NOT_YET
        return Part(name, False, reason, commit, optional=wanted.optional)
    if wanted.path:
        head, reason = None, _other_link(current.folder / place, wanted.path)
    else:
        head = git.head(current.folder / place)
        reason = _other_commit(current, place, commit, head)
    reason = reason or current.damage.get(place, "")
    imported, why_not = _import(current, name)
    ok = not reason and imported is not False
    return Part(name, ok, reason or why_not, commit, head, imported, wanted.optional)


def _import(current: _Generation, name: str) -> tuple[bool | None, str]:
    """Whether a node loaded in validation (None: not known), and why not."""
    result = current.results.get(name)
    if result is None or not result.failed:
        return (True if result and result.loaded else None), ""
    if name in current.unsure:
        return None, f"whether it imports can't be proved in a build: it {result}"
    return False, f"it {result}"


def _wanted_commit(
    layout: Layout, pin: Pin | None, wanted: WantedNode, receipt: Path
) -> str | None:
    """The lock's commit if it has the same request, else that of the last run's receipt."""
    source = Source(
        name=wanted.name,
        url=wanted.url,
        path=Path(wanted.path) if wanted.path else None,
        ref=wanted.ref,
        recursive=False,
        receipt=receipt,
        layout=layout,
        locked=pin,
        id=wanted.id,
    )
    return source.commit


def _other_commit(current: _Generation, place: str, wanted: str | None, head: str | None) -> str:
    """What is wrong with a checkout's commit; empty if nothing."""
    changes = _changes(current.folder, reported_changes.file_of(current.folder))
    built_from = current.receipt["heads"].get(place)
    if built_from == wanted and changes.moved(place, head):
        return ""
    if head is None:
        exists = os.path.lexists(current.folder / place)
        return "its folder has no commit" if exists else "it isn't in the current generation"
    if wanted is None:
        return "it was not fetched yet, or its entry changed"
    # A node's own script may have moved its checkout.
    script = str(current.receipt["scripts"].get(Path(place).name, ""))
    if head == wanted or (head == built_from and script.startswith(wanted)):
        return ""
    return f"it is at {head[:12]}, and {wanted[:12]} is wanted"


def _other_link(link: Path, path: str) -> str:
    """What is wrong with a node's link; empty if nothing."""
    target = files.link_target(link)
    if target is None:
        exists = os.path.lexists(link)
        return "it isn't a link to its folder" if exists else "it isn't in the current generation"
    if target != path:
        return f"its link points at {target}, not at {path}"
    return "" if os.path.isdir(path) else f"{path} is missing"  # noqa: PTH112


def _packages(layout: Layout, lock: Lock, current: _Generation | None) -> Packages:
    """Compare with the lock's set, or with the last resolved one if that has other inputs."""
    recorded = _recorded_packages(layout.packages)
    same = recorded is None or (lock.python and recorded.asked == lock.python.asked)
    wanted = lock.python if same else recorded
    if current is None:
        return Packages(False, "they are not installed yet", len(wanted.packages) if wanted else 0)
    home = Path(os.path.realpath(current.folder / "environment"))
    changes = _changes(current.folder, reported_changes.file_of(current.folder))
    packages = _with_replacing_nodes(compare(home, wanted), changes)
    if packages.ok and (reason := current.damage.get("environment")):
        return replace(packages, ok=False, reason=reason)
    return packages


def _with_replacing_nodes(packages: Packages, changes: reported_changes.Changes) -> Packages:
    """Add the custom nodes that replaced packages to the reasons."""
    nodes = {environments.named(each)[0]: node for each, node in changes.gone.items() if node}
    if not (replaced := nodes.keys() & packages.wrong.keys()):
        return packages
    wrong = {
        name: why + (f" (custom node {nodes[name]} replaced it)" if name in replaced else "")
        for name, why in packages.wrong.items()
    }
    name = min(replaced)
    return replace(packages, reason=f"{name} {wrong[name]}", wrong=wrong)
