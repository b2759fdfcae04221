"""Additional requirements, resolved beside a locked set that doesn't move.

A full resolution would come to the same result, but asks the index about every package again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ..engine.run import Run
from ..spec import PythonSet
from ..spec.overlapping_packages import FAMILIES
from . import packages, requirements, resolver
from .requirements import Line, Request, normalized
from .resolver import Problem
from .torch_family import TORCH_FAMILY, package_names

BOUND_PACKAGES = frozenset({*TORCH_FAMILY, *(name for each in FAMILIES.values() for name in each)})
"""Packages that depend on each other in ways their metadata doesn't state."""


def extend(problem: Problem) -> PythonSet | None:
    """The previous set with the new requirements; None when it takes a full resolution."""
    before, run = problem.before, problem.run
    if before is None or not _only_adds(run, problem.asked, before):
        return None
    # A node that conflicted with fewer lines still does. One whose lines were refused has none in
    # the previous set, and counts as new.
    conflicting = before.left_out.keys() & before.asked.requirements.custom_nodes.keys()
    left_out = {each.node.name for each in problem.asked if each.node} & conflicting
    staying = requirements.without_nodes(problem.asked, left_out)
    missing = [line for line in _new_lines(staying, before) if not _is_met(before, run, line)]
    if any(line.hashes or line.constraint or line.url or not line.name for line in missing):
        return None
    chosen = dict(before.packages)
    if missing:
        fixed = [f"{name}=={each.version}" for name, each in chosen.items() if each.version]
        limits = [line.text for each in staying for line in each.lines if line.constraint]
        within = replace(problem, replacements=before.reduced)
        answer = resolver.run_uv(within, [line.text for line in missing], [*fixed, *limits])
        new = {name: each for name, each in answer.packages.items() if name not in chosen}
        unsure = [name for name in answer.packages if name in chosen and not chosen[name].version]
        if not answer.fits or unsure or not BOUND_PACKAGES.isdisjoint(new):
            return None
        chosen |= new
    asked = packages.locked_form(run, problem.asked)
    return before.model_copy(
        update={
            "asked": asked.model_copy(update={"torch": before.asked.torch}),
            "packages": dict(sorted(chosen.items())),
            "left_out": {name: before.left_out[name] for name in sorted(left_out)},
        }
    )


def _only_adds(run: Run, asked: Iterable[Request], before: PythonSet) -> bool:
    """Whether every previous requirement is still there, unchanged."""
    if run.updates is not None or run.machine.lock.python is None:
        return False
    now = packages.locked_form(run, asked)
    kept = {"requirements": now.requirements, "packages": now.packages}
    if before.asked.model_copy(update=kept) != now:
        return False
    previous, nodes = before.asked, now.requirements.custom_nodes
    return (
        set(previous.packages) <= set(now.packages)
        and set(previous.requirements.comfyui) <= set(now.requirements.comfyui)
        and all(
            set(lines) <= set(nodes.get(name, ()))
            for name, lines in previous.requirements.custom_nodes.items()
        )
    )


def _new_lines(asked: Iterable[Request], before: PythonSet) -> list[Line]:
    locked = before.asked.requirements
    every = (locked.comfyui, before.asked.packages, *locked.custom_nodes.values())
    texts = {text for lines in every for text in lines}
    return [line for each in asked for line in each.lines if str(line) not in texts]


def _is_met(before: PythonSet, run: Run, line: Line) -> bool:
    """Whether the set meets a line already, or the line is for another platform or overridden."""
    if not line.applies:
        return True
    name, found = normalized(line.name or ""), line.requirement
    if found is None or line.url or line.hashes or found.extras:
        return False
    package = before.packages.get(name)
    if name in before.reduced:
        return True
    if package is None:
        return line.constraint
    if name in package_names(run.machine.python.overrides):
        return True
    version = package.version
    return version is not None and found.specifier.contains(version, prereleases=True)
