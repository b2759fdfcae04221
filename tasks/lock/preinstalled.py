"""`torch: preinstalled`: the torch that the base interpreter has, an image's own, never touched."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from ..engine.run import Run
from ..host.system import process
from ..host.system.failure import Failure
from .requirements import Line, RefusedRequirement, Request
from .torch_family import TORCH_FAMILY


def is_chosen(run: Run) -> bool:
    return run.machine.python.torch == "preinstalled"


def versions(run: Run) -> dict[str, str]:
    """The torch family's versions there; empty where machine.yaml doesn't ask for it."""
    return _versions(base_python()) if is_chosen(run) else {}


def base_python() -> Path:
    """The interpreter that doit's own environment was made of, and the machine's will be."""
    python = Path(getattr(sys, "_base_executable", sys.executable))
    if sys.prefix != sys.base_prefix and python.is_relative_to(sys.prefix):
        # Python 3.10 calls the environment's own so.
        return Path(sys.base_prefix, "bin", "python{}.{}".format(*sys.version_info))
    return python


def require_torch(run: Run) -> None:
    """Raises Failure when torch isn't there."""
    if is_chosen(run) and "torch" not in versions(run):
        raise Failure(
            f"python.torch is preinstalled, and {base_python()} has no torch: "
            "make .venv with the Python that has it, or choose another torch"
        )


def check_request(run: Run, asked: Request) -> Request:
    """What is asked for, if what is preinstalled is of use for that. Raises Refused."""
    there = versions(run)
    for line in asked.lines:
        version = there.get(str(line.name).lower())
        if version and not _fits(line, version):
            raise RefusedRequirement(
                f"{asked.owner} asks for {line.text!r} ({line.place}), and {line.name} {version} "
                "is preinstalled: use another ref of it, or another torch",
                asked.node,
            )
    return asked


def remarks(run: Run, asked: Iterable[Request]) -> list[str]:
    """What is asked for of the torch family and is neither there nor installed."""
    if not is_chosen(run):
        return []
    missing = set(TORCH_FAMILY) - set(versions(run))
    return [
        f"{each.owner} asks for {line.name}, which is not preinstalled: it will be missing"
        for each in asked
        for line in each.lines
        if line.name in missing
    ]


def _fits(line: Line, version: str) -> bool:
    requirement = line.requirement
    if requirement is None or not line.applies:
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
