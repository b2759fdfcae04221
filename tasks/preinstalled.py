"""`torch: preinstalled`: the torch that the base interpreter has, an image's own, never touched."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

from tasks.host import process
from tasks.host.failure import Failure
from tasks.requirements import Asked
from tasks.resolution import TORCH_FAMILY
from tasks.spec import Machine


def wanted(machine: Machine) -> bool:
    return machine.python.torch == "preinstalled"


def versions(machine: Machine) -> dict[str, str]:
    """The torch family's versions there; empty where machine.yaml doesn't ask for it."""
    return _versions(base_python()) if wanted(machine) else {}


def base_python() -> Path:
    """The interpreter that doit's own environment was made of, and the machine's will be."""
    return Path(getattr(sys, "_base_executable", sys.executable))


def insist(machine: Machine, asked: list[Asked]) -> None:
    """Raises Failure when torch isn't there, or isn't one that ComfyUI and nodes can use."""
    if not wanted(machine):
        return
    there = versions(machine)
    if "torch" not in there:
        raise Failure(
            f"python.torch is preinstalled, and {base_python()} has no torch: "
            "make .venv with the Python that has it, or choose another torch"
        )
    for each in asked:
        for line in each.lines:
            if line.name in there and not _fits(line.text, there[line.name]):
                raise Failure(
                    f"{each.owner} asks for {line.text!r} ({line.place}), and {line.name} "
                    f"{there[line.name]} is preinstalled: use another ref of it, or another torch"
                )


def _fits(text: str, version: str) -> bool:
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        requirement = Requirement(text.partition(" --")[0])
    except InvalidRequirement:
        return True
    if requirement.marker and not requirement.marker.evaluate():
        return True
    return requirement.specifier.contains(version, prereleases=True)


@cache
def _versions(python: Path) -> dict[str, str]:
    """Asked of the interpreter itself: only it knows where its distribution keeps packages."""
    script = (
        "import importlib.metadata as m, sys\n"
        "for name in sys.argv[1:]:\n"
        "    try: print(name, m.version(name))\n"
        "    except m.PackageNotFoundError: pass"
    )
    said = process.run([python, "-I", "-c", script, *TORCH_FAMILY], env={}, timeout=60)
    return dict(line.split() for line in said.splitlines() if len(line.split()) == 2)
