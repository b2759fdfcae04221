"""The Python packages of a machine, and the requests that they come from."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from .. import nodes
from ..engine.run import Run
from ..host.python import environments
from ..host.system import files, gpu
from ..host.system.failure import Failure
from ..host.system.program_files import PROGRAM
from ..spec import CustomNode, Package, PythonSet
from ..spec.lock_format import Asked as Recorded
from ..spec.lock_format import dumped
from . import preinstalled, requirements, resolution, resolver
from .requirements import Request
from .torch_family import TORCH_FAMILY, package_names


def required(run: Run) -> PythonSet:
    """The packages that this machine needs. Raises Failure before the first resolution."""
    python = last_resolved(run)
    if python is None:
        raise Failure(f"the packages are not resolved yet: run {PROGRAM} lock")
    return python


def last_resolved(run: Run) -> PythonSet | None:
    """The set of the last resolution; None before the first."""
    return environments.noted(run.layout.read_path(run.layout.packages))


def record(run: Run, python: PythonSet) -> None:
    """Write the set to disk for the later steps."""
    files.write_receipt(run.layout.write_path(run.layout.packages), dumped(python))


def with_other_family(run: Run, constraints: Mapping[str, str], log: Path) -> PythonSet:
    """This machine's set with other versions of the torch family, within these constraints.

    Ignores machine.yaml's overrides of the family. Raises Failure.
    """
    current = required(run)
    python = run.machine.python.model_copy(update={"overrides": other_overrides(run)})
    other = run.with_machine(run.machine.model_copy(update={"python": python}))
    problem = resolver.Problem(
        replace(other, updates=frozenset(["torch"])),
        requirements.without_nodes(collect_requests(run)[0], current.left_out),
        current.asked.torch,
        current,
        log,
        matched=constraints,
    )
    return current.model_copy(update={"packages": resolution.solve(problem).packages})


def other_overrides(run: Run) -> tuple[str, ...]:
    """machine.yaml's overrides without those of the torch family."""
    return tuple(
        text
        for text in run.machine.python.overrides
        if package_names([text]).isdisjoint(TORCH_FAMILY)
    )


def requirements_file(run: Run, wanted: Mapping[str, Package]) -> Path:
    """Write these packages to a requirements file."""
    file = run.layout.scratch / "packages.txt"
    lines = [f"{package.requirement(name)}\n" for name, package in sorted(wanted.items())]
    files.write_text(file, "".join(lines))
    return file


def uv_sources(run: Run) -> tuple[list[str], dict[str, str]]:
    """uv's arguments and variables that say where the packages come from."""
    return resolver.backend_arguments(required(run).asked.torch), resolver.index_variables(run)


def collect_requests(run: Run) -> tuple[list[Request], dict[str, str]]:
    """All requests, and optional node → why its request is refused.

    Raises Failure for a refused request of anything else.
    """
    preinstalled.require_torch(run)
    asked: list[Request] = []
    refused: dict[str, str] = {}
    hard: list[str] = []
    for node, read in _readers(run):
        try:
            asked.append(preinstalled.check_request(run, read()))
        except requirements.RefusedRequirement as refusal:
            if node and node.optional:
                refused[node.name] = str(refusal)
            else:
                hard.append(str(refusal))
    if hard:
        raise Failure("\n    ".join(hard))
    return asked, refused


def _readers(run: Run) -> Iterator[tuple[CustomNode | None, Callable[[], Request]]]:
    """Each source of requests, and the function that reads it."""
    yield None, partial(requirements.read_comfyui, run)
    yield None, partial(requirements.read_machine, run)
    fetched = nodes.fetched_nodes(run)
    for node in run.machine.custom_nodes:
        # While its repository is unreachable, the lock's lines stay.
        of = requirements.read_node if node in fetched else requirements.read_locked
        yield node, partial(of, run, node)


def locked_form(run: Run, asked: Iterable[Request]) -> Recorded:
    """The requests and machine.yaml's settings as machine.lock records them."""
    python = run.machine.python
    return Recorded(
        python=".".join(map(str, sys.version_info[:2])),
        platform=sysconfig.get_platform(),
        torch=torch_build(run),
        packages=python.packages,
        overrides=python.overrides,
        prefer=python.prefer,
        find_links=tuple(_portable(run, place) for place in python.find_links),
        extra_index_urls=python.extra_index_urls,
        requirements=requirements.locked_form(asked),
    )


def _portable(run: Run, place: str) -> str:
    """A folder relative to machine.yaml, so that the lock fits other machines too."""
    folder = run.machine.file.parent
    if Path(place).is_absolute() and Path(place).is_relative_to(folder):
        return os.path.relpath(place, folder)
    return place


def torch_build(run: Run) -> str:
    """The torch build: machine.yaml's, else the lock's, else the driver's, else PyPI's.

    Without a driver, uv's `auto` means the CPU build, and an image would keep it.
    """
    wanted = run.machine.python.torch
    if wanted != "auto":
        return wanted
    usable = {"none": False, "preinstalled": False, "cpu": run.machine.instances.cpu_only}
    for last in (run.machine.lock.python, last_resolved(run)):
        if last and usable.get(last.asked.torch, True) and not run.updating("torch"):
            return last.asked.torch
    if run.machine.instances.cpu_only:
        return "cpu"
    return "auto" if gpu.driver_present() else "pypi"
