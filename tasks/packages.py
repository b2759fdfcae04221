"""The Python packages that a machine is to have: the lock's, where that fits, else a new set."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tasks import nodes, preinstalled, requirements, resolution
from tasks.engine.said import move
from tasks.host import environments, files, gpu, retention
from tasks.host.failure import Failure
from tasks.requirements import Asked
from tasks.resolution import Solution
from tasks.spec import Machine, Package, PythonSet
from tasks.spec.lock import Asked as Recorded
from tasks.spec.lock import dumped
from tasks.torch_family import TORCH_FAMILY, named


@dataclass(frozen=True)
class Settled:
    """The packages, and how they came about."""

    python: PythonSet
    said: list[str]
    """What was replaced or not used, and each move."""
    again: list[str]
    """Optional nodes whose packages could not be had: every run tries them again."""


def of(machine: Machine) -> PythonSet:
    """The packages that this machine is to have. Raises Failure before the first resolve."""
    found = known(machine)
    if found is None:
        raise Failure("its packages were never resolved")
    return found


def known(machine: Machine) -> PythonSet | None:
    """The set that was settled last, None before the first time."""
    return environments.noted(machine.layout.seen(machine.layout.packages))


def note(machine: Machine, python: PythonSet) -> None:
    """Write the set down for the steps that follow."""
    files.write_receipt(machine.layout.kept(machine.layout.packages), dumped(python))


def settle(machine: Machine, log: Path) -> Settled:
    """The set that fits what is asked: the lock's, the last one, or a new one. Raises Failure."""
    asked, refused = _ask(machine)
    if machine.locked:
        asked, missing = _without_what_the_lock_lacks(machine, asked)
        refused |= missing
    before = machine.lock.python or known(machine)
    for fitting in _candidates(machine):
        if fitting.asked == _recorded(machine, asked):
            left_out = {**fitting.left_out, **refused}
            python = fitting.model_copy(update={"left_out": left_out})
            return Settled(python, _moves(known(machine) or python, python), [])
    if machine.locked:
        raise Failure(_difference(machine, asked))
    problem = resolution.Problem(machine, tuple(asked), torch_build(machine), before, log)
    solution = resolution.solve(problem)
    # Without the lines of those that could not be had, the next run asks for them anew.
    had = [each for each in asked if not (each.node and each.node.name in solution.unreachable)]
    python = PythonSet(
        asked=_recorded(machine, had).model_copy(update={"torch": solution.torch}),
        packages=solution.packages,
        left_out={**solution.left_out, **solution.unreachable, **refused},
        reduced=solution.reduced,
    )
    said = [
        *preinstalled.remarks(machine, asked),
        *_remarks(asked, solution, before),
        *_moves(before, python),
    ]
    return Settled(python, said, sorted(solution.unreachable))


def another_family(machine: Machine, constraints: Mapping[str, str], log: Path) -> PythonSet:
    """This machine's set with other versions of the torch family, within these constraints.

    What machine.yaml's overrides say of the family is put aside. Raises Failure.
    """
    settled = of(machine)
    python = machine.python.model_copy(update={"overrides": other_overrides(machine)})
    moving = {"python": python, "updates": frozenset(["torch"])}
    problem = resolution.Problem(
        machine.model_copy(update=moving),
        tuple(_ask(machine)[0]),
        settled.asked.torch,
        settled,
        log,
        matched=constraints,
    )
    return settled.model_copy(update={"packages": resolution.solve(problem).packages})


def other_overrides(machine: Machine) -> tuple[str, ...]:
    """machine.yaml's overrides of all but the torch family."""
    return tuple(
        text for text in machine.python.overrides if named([text]).isdisjoint(TORCH_FAMILY)
    )


def listed(machine: Machine, wanted: Mapping[str, Package]) -> Path:
    """Packages as a requirements file."""
    file = machine.layout.scratch / "packages.txt"
    lines = [f"{package.requirement(name)}\n" for name, package in sorted(wanted.items())]
    files.write_text(file, "".join(lines))
    return file


def where(machine: Machine) -> tuple[list[str], dict[str, str]]:
    """uv's arguments and variables for where the packages come from."""
    return resolution.backend(of(machine).asked.torch), resolution.places(machine)


def _candidates(machine: Machine) -> list[PythonSet]:
    """The sets that may fit as they are; after the lock was deleted the last one is only preferred.

    It may be what was wrong with that lock.
    """
    if machine.updates is not None or machine.lock.python is None:
        return []
    # Going back to what a kept generation has is going back to its packages, one by one.
    others = [] if machine.locked else [known(machine), *retention.settled(machine.layout)]
    return [each for each in (machine.lock.python, *others) if each]


def _without_what_the_lock_lacks(
    machine: Machine, asked: list[Asked]
) -> tuple[list[Asked], dict[str, str]]:
    """With locked=1 an optional node whose packages could not be had for the lock is left out."""
    lock = machine.lock.python
    there = lock.asked.requirements.custom_nodes if lock else {}
    missing = {
        each.node.name: "machine.lock has no packages for it: run doit lock without locked=1"
        for each in asked
        if each.node and each.node.optional and each.lines and each.node.name not in there
    }
    kept = [each for each in asked if not (each.node and each.node.name in missing)]
    return kept, missing


def _remarks(asked: list[Asked], solution: Solution, before: PythonSet | None) -> list[str]:
    said = [
        f"{each.owner}: {line} is not used, it would concern every package; "
        "python.extra_index_urls and python.find_links do that"
        for each in asked
        for line in each.unused
    ]
    reduced = before.reduced if before else {}
    replaced = sorted(solution.reduced.items())
    return said + [f"{n} is replaced by {one}" for n, one in replaced if reduced.get(n) != one]


def _moves(before: PythonSet | None, after: PythonSet) -> list[str]:
    if before is None:
        return [f"{len(after.packages)} packages resolved"]
    names = sorted({*before.packages, *after.packages})
    old = {name: package.shown for name, package in before.packages.items()}
    new = {name: package.shown for name, package in after.packages.items()}
    return [
        move(name, old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name)
    ]


def _ask(machine: Machine) -> tuple[list[Asked], dict[str, str]]:
    """What everybody asks for, and the optional nodes that ask for what can't be taken."""
    preinstalled.insist(machine)
    asked, refused = [preinstalled.fitting(machine, requirements.of_comfyui(machine))], {}
    fetched = nodes.fetched(machine)
    for node in machine.custom_nodes:
        if node not in fetched:
            # While its repository is away, what the lock has for it stays.
            asked.append(requirements.of_lock(machine, node))
            continue
        try:
            asked.append(preinstalled.fitting(machine, requirements.of_node(machine, node)))
        except requirements.Refused as refusal:
            if not node.optional:
                raise
            refused[node.name] = str(refusal)
    return asked, refused


def _recorded(machine: Machine, asked: list[Asked]) -> Recorded:
    python = machine.python
    return Recorded(
        python=".".join(map(str, sys.version_info[:2])),
        platform=sysconfig.get_platform(),
        torch=torch_build(machine),
        overrides=python.overrides,
        prefer=python.prefer,
        find_links=tuple(_portable(machine, place) for place in python.find_links),
        extra_index_urls=python.extra_index_urls,
        requirements=requirements.recorded(asked),
    )


def _portable(machine: Machine, place: str) -> str:
    """A folder as machine.yaml names it, so that the lock fits another machine too."""
    folder = machine.file.parent
    if Path(place).is_absolute() and Path(place).is_relative_to(folder):
        return os.path.relpath(place, folder)
    return place


def torch_build(machine: Machine) -> str:
    """Which build: machine.yaml's, else the lock's, else the driver's, else PyPI's.

    Without a driver uv's own `auto` means the CPU build, and an image would keep it.
    """
    wanted = machine.python.torch
    if wanted != "auto":
        return wanted
    usable = {"none": False, "preinstalled": False, "cpu": machine.instances.cpu_only}
    for last in (machine.lock.python, known(machine)):
        if last and usable.get(last.asked.torch, True) and not machine.updating("torch"):
            return last.asked.torch
    if machine.instances.cpu_only:
        return "cpu"
    return "auto" if gpu.driver_present() else "pypi"


def _difference(machine: Machine, asked: list[Asked]) -> str:
    """Which part of what is asked the lock doesn't have."""
    mend = "run doit lock without locked=1, and commit the lock"
    there = machine.lock.python
    if there is None:
        return f"machine.lock has no Python packages: {mend}"
    old, new = dumped(there.asked), dumped(_recorded(machine, asked))
    for key in sorted({*old, *new} - {"requirements"}):
        if old.get(key) != new.get(key):
            was, now = old.get(key), new.get(key)
            if key == "python":
                mend = f"run doit lock with Python {now} (an image's: make image-lock)"
            return f"machine.lock was made for {key} {was}, here it is {now}: {mend}"
    locked, here = there.asked.requirements, requirements.recorded(asked)
    lines = _changed("ComfyUI", locked.comfyui, here.comfyui)
    for owner in sorted({*locked.custom_nodes, *here.custom_nodes}):
        lines += _changed(
            owner, locked.custom_nodes.get(owner, ()), here.custom_nodes.get(owner, ())
        )
    return f"machine.lock doesn't have what is asked for ({'; '.join(lines)}): {mend}"


def _changed(owner: str, was: tuple[str, ...], now: tuple[str, ...]) -> list[str]:
    added = [f"{owner} now asks for {line!r}" for line in now if line not in was]
    return added + [f"{owner} no longer asks for {line!r}" for line in was if line not in now]
