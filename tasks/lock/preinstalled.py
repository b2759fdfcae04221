"""`torch: preinstalled`: use the torch of the base interpreter, such as an image's, unchanged."""

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
    """The preinstalled versions of the torch family; empty unless machine.yaml chooses it."""
    return _versions(base_python()) if is_chosen(run) else {}


def base_python() -> Path:
    """The interpreter below doit's own environment, which is also the machine's."""
    python = Path(getattr(sys, "_base_executable", sys.executable))
    if sys.prefix != sys.base_prefix and python.is_relative_to(sys.prefix):
        # In Python 3.10, _base_executable is the environment's own interpreter.
        return Path(sys.base_prefix, "bin", "python{}.{}".format(*sys.version_info))
    return python


def require_torch(run: Run) -> None:
    """Raises Failure when torch should be preinstalled and isn't."""
    if is_chosen(run) and "torch" not in versions(run):
        raise Failure(
            f"python.torch is preinstalled, but {base_python()} has no torch: "
            "make .venv with the Python that has it, or choose another torch"
        )


def check_request(run: Run, asked: Request) -> Request:
    """Return the request if the preinstalled versions meet it. Raises RefusedRequirement."""
    preinstalled = versions(run)
    for line in asked.lines:
        version = preinstalled.get(str(line.name).lower())
        if version and not _fits(line, version):
            raise RefusedRequirement(
                f"{asked.owner} requires {line.text!r} ({line.place}), but {line.name} {version} "
                "is preinstalled: use another ref of it, or another torch",
                asked.node,
            )
    return asked


def remarks(run: Run, asked: Iterable[Request]) -> list[str]:
    """One line for each requested package of the torch family that isn't preinstalled."""
    if not is_chosen(run):
        return []
    missing = set(TORCH_FAMILY) - set(versions(run))
    return [
        f"{each.owner} requires {line.name}, which isn't preinstalled: it will be missing"
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
    """Ask the interpreter itself: only it knows where its distribution keeps packages."""
    script = (
        "import importlib.metadata as m, sys\n"
        "for name in sys.argv[1:]:\n"
        "    try: print(name, m.version(name))\n"
        "    except m.PackageNotFoundError: pass"
    )
    output = process.run([python, "-I", "-c", script, *TORCH_FAMILY], env={}, timeout=60)
    return dict(line.split() for line in output.splitlines() if len(line.split()) == 2)
