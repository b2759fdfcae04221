"""The Python packages that a machine is to have, and what is asked for."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

from .. import nodes
from ..host.python import environments
from ..host.system import files, gpu
from ..host.system.failure import Failure
from ..spec import CustomNode, Machine, Package, PythonSet
from ..spec.lock_format import Asked as Recorded
from ..spec.lock_format import dumped
from . import preinstalled, requirements, resolution, resolver
from .requirements import Asked
from .torch_family import TORCH_FAMILY, named


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


def another_family(machine: Machine, constraints: Mapping[str, str], log: Path) -> PythonSet:
    """This machine's set with other versions of the torch family, within these constraints.

    What machine.yaml's overrides say of the family is put aside. Raises Failure.
    """
    settled = of(machine)
    python = machine.python.model_copy(update={"overrides": other_overrides(machine)})
    moving = {"python": python, "updates": frozenset(["torch"])}
    problem = resolver.Problem(
        machine.model_copy(update=moving),
        without(ask(machine)[0], settled.left_out),
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


def without(asked: Iterable[Asked], names: Container[str]) -> tuple[Asked, ...]:
    """What all but these nodes ask for."""
    return tuple(each for each in asked if not (each.node and each.node.name in names))


def listed(machine: Machine, wanted: Mapping[str, Package]) -> Path:
    """Packages as a requirements file."""
    file = machine.layout.scratch / "packages.txt"
    lines = [f"{package.requirement(name)}\n" for name, package in sorted(wanted.items())]
    files.write_text(file, "".join(lines))
    return file


def where(machine: Machine) -> tuple[list[str], dict[str, str]]:
    """uv's arguments and variables for where the packages come from."""
    return resolver.backend(of(machine).asked.torch), resolver.places(machine)


def ask(machine: Machine) -> tuple[list[Asked], dict[str, str]]:
    """What everybody asks for, and the optional nodes that ask for what can't be taken."""
    preinstalled.insist(machine)
    asked: list[Asked] = []
    refused: dict[str, str] = {}
    hard: list[str] = []
    for node, read in _readers(machine):
        try:
            asked.append(preinstalled.fitting(machine, read()))
        except requirements.Refused as refusal:
            if node and node.optional:
                refused[node.name] = str(refusal)
            else:
                hard.append(str(refusal))
    if hard:
        raise Failure("\n    ".join(hard))
    return asked, refused


def _readers(machine: Machine) -> Iterator[tuple[CustomNode | None, Callable[[], Asked]]]:
    """Who may ask for something, and how it is read."""
    yield None, partial(requirements.of_comfyui, machine)
    yield None, partial(requirements.of_machine, machine)
    fetched = nodes.fetched(machine)
    for node in machine.custom_nodes:
        # While its repository is away, what the lock has for it stays.
        of = requirements.of_node if node in fetched else requirements.of_lock
        yield node, partial(of, machine, node)


def recorded(machine: Machine, asked: Iterable[Asked]) -> Recorded:
    python = machine.python
    return Recorded(
        python=".".join(map(str, sys.version_info[:2])),
        platform=sysconfig.get_platform(),
        torch=torch_build(machine),
        packages=python.packages,
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
