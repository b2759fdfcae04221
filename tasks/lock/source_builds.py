"""Packages that come as source: built before the installation, once on each machine.

So a failed build names who requires the package, while an optional node can still be left out.
uv caches the builds, and the installation uses them.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..engine.run import Run
from ..host.python import build_log, uv, uv_errors
from ..host.python.build_log import Missing
from ..host.system import files, process
from ..host.system.program_files import PROGRAM
from ..spec import Package
from . import resolver
from .conflicts.minimal_sets import each_failing
from .resolver import NO_SOLUTION, Demand, Problem


@dataclass(frozen=True)
class FailedBuild:
    """A package that can't be built here."""

    name: str
    shown: str
    """Name and version."""
    why: str
    reachable: bool
    """False: something that the build needs could not be fetched."""
    missing: Missing | None
    askers: tuple[tuple[Demand, tuple[str, ...]], ...]
    """The lines that require it, each with the packages in between."""

    @property
    def optional(self) -> set[str]:
        """The optional nodes that need it."""
        return {str(each.node) for each, _ in self.askers if each.optional}

    @property
    def optional_only(self) -> bool:
        """Whether only optional nodes need it."""
        return bool(self.askers) and all(each.optional for each, _ in self.askers)

    def __str__(self) -> str:
        fate = "can't be built" if self.reachable else "can't be fetched"
        return f"{_with_askers(self.shown, self.askers)} {fate}: {self.why}"


def why_not_installed(problem: Problem, packages: Mapping[str, Package]) -> list[str]:
    """One line for each of these that can't be installed; empty if unknown.

    Bisects: tries smaller and smaller groups again.
    """
    errors: dict[str, process.CommandFailed] = {}

    def fails(names: Sequence[str]) -> bool:
        try:
            _call(problem, packages, names)
        except process.CommandFailed as error:
            errors.update(dict.fromkeys(names, error) if len(names) == 1 else {})
            return True
        return False

    failing = each_failing(fails, sorted(packages))
    if not failing:
        return []
    parents = resolver.parents(problem, problem.demands, packages)
    lines = []
    for name in failing:
        asking = list(askers(problem.demands, packages, parents, name))
        if not asking:
            asking = [(each, ()) for each in _unresolvable_lines(problem, packages)]
        whose = _with_askers(f"{name} {packages[name].shown}", asking)
        lines.append(f"{whose} {_why(problem, packages, name, errors[name])}")
    return lines


def _unresolvable_lines(problem: Problem, packages: Mapping[str, Package]) -> list[Demand]:
    """The lines that don't resolve any more; without a removed package there is no graph."""
    return each_failing(
        lambda some: not resolver.parents(problem, some, packages),
        [each for each in problem.demands if not each.own],
    )


def _why(
    problem: Problem,
    packages: Mapping[str, Package],
    name: str,
    error: process.CommandFailed,
) -> str:
    package = packages[name]
    if package.sha256:
        with contextlib.suppress(process.CommandFailed):
            _call(problem, {name: package.model_copy(update={"sha256": ()})}, [name])
            advice = f"if that is right: {PROGRAM} update {name}"
            return f"differs from the file that the lock names; {advice}"
    if lacks := build_log.missing(error.output):
        return f"can't be built: {lacks}"
    advice = (
        f"{PROGRAM} update {name} takes another version"
        if package.version
        else "check that it exists"
    )
    return f"isn't available ({uv_errors.gist(error.output)}): {advice}"


def not_built(run: Run, packages: Mapping[str, Package]) -> list[str]:
    """The source packages that this machine has not built yet."""
    receipt = files.read_receipt(run.layout.read_path(_receipt(run)))
    built = receipt.get("built", []) if receipt.get("python") == sys.version else []
    sources = ((name, each) for name, each in sorted(packages.items()) if each.from_source)
    return [name for name, each in sources if each.requirement(name) not in built]


def build_due(problem: Problem, packages: Mapping[str, Package]) -> list[FailedBuild]:
    """Build the packages that are not built yet; return those that failed."""
    run = problem.run
    waiting = not_built(run, packages)
    failed = _build(problem, packages, waiting) if waiting else {}
    if waiting:
        built = {n: each for n, each in packages.items() if each.from_source and n not in failed}
        texts = sorted(each.requirement(name) for name, each in built.items())
        receipt = {"python": sys.version, "built": texts}
        files.write_receipt(run.layout.write_path(_receipt(run)), receipt)
    if not failed:
        return []
    parents = resolver.parents(problem, problem.demands, packages)
    reachable = resolver.index_answers(problem)
    return [
        _failed_build(problem, packages, name, error, parents, reachable)
        for name, error in failed.items()
    ]


def askers(
    demands: Iterable[Demand],
    packages: Mapping[str, Package],
    parents: Mapping[str, Sequence[str]],
    package: str,
) -> Iterator[tuple[Demand, tuple[str, ...]]]:
    """The lines that lead to a package, each with the packages in between."""
    paths = resolver.paths_to(package, parents)
    for demand in demands:
        if demand.line.constraint or demand.own or not demand.line.applies:
            continue
        for name, path in paths.items():
            if demand.name == name or (
                demand.name is None and _is_same_source(demand, packages.get(name))
            ):
                yield demand, path
                break


def _build(
    problem: Problem, packages: Mapping[str, Package], names: Sequence[str]
) -> dict[str, process.CommandFailed]:
    """Build all at once, and one by one if that fails; return the failures."""
    problem.run.progress("lock", None, f"building {', '.join(names)}")
    try:
        _call(problem, packages, names)
    except process.CommandFailed as error:
        if len(names) == 1:
            return {names[0]: error}
        return {
            name: one for each in names for name, one in _build(problem, packages, [each]).items()
        }
    return {}


def _call(problem: Problem, packages: Mapping[str, Package], names: Sequence[str]) -> None:
    run = problem.run
    folder = run.layout.scratch / "build"
    files.remove(folder)
    listed = run.layout.scratch / "build.txt"
    files.write_text(listed, "".join(f"{packages[name].requirement(name)}\n" for name in names))
    backend = resolver.backend_arguments(problem.torch)
    try:
        uv.build(folder, listed, backend, resolver.index_variables(run), problem.log)
    finally:
        files.remove(folder)


def _failed_build(
    problem: Problem,
    packages: Mapping[str, Package],
    name: str,
    error: process.CommandFailed,
    parents: Mapping[str, Sequence[str]],
    reachable: bool,
) -> FailedBuild:
    lacks = build_log.missing(error.output)
    return FailedBuild(
        name=name,
        shown=f"{name} {packages[name].shown}",
        why=str(lacks) if lacks else uv_errors.gist(error.output),
        reachable=error.code == NO_SOLUTION and (bool(lacks) or reachable),
        missing=lacks,
        askers=tuple(askers(problem.demands, packages, parents, name)),
    )


def _is_same_source(demand: Demand, package: Package | None) -> bool:
    return bool(package and demand.line.url and demand.line.url in (package.git, package.url))


def _with_askers(shown: str, asking: Sequence[tuple[Demand, tuple[str, ...]]]) -> str:
    if len(asking) == 1:
        ((demand, chain),) = asking
        place = _chain_text(chain) or f" ({demand.line.place})"
        return f"{demand.owner}'s {shown}{place}"
    owners = dict.fromkeys(f"{each.owner}{_chain_text(chain)}" for each, chain in asking)
    return f"{shown} of {', '.join(owners)}" if owners else shown


def _chain_text(chain: Sequence[str]) -> str:
    return f" (through {', '.join(chain)})" if chain else ""


def _receipt(run: Run) -> Path:
    return run.layout.receipts / "builds.json"
