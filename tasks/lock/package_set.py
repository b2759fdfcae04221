"""The packages that fit all requirements: the lock's set if it does, else a new one."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..engine.messages import describe_move
from ..engine.run import Run
from ..host.generations import kept_generations
from ..host.python.build_log import Missing
from ..host.system.failure import Failure
from ..host.system.program_files import PROGRAM
from ..spec import PythonSet
from ..spec.lock_format import dumped
from . import additions, packages, preinstalled, requirements, resolution, resolver, source_builds
from .requirements import Request


@dataclass(frozen=True)
class PackageSet:
    """The chosen packages, and how they differ from the previous ones."""

    python: PythonSet
    before: PythonSet | None
    """The set that it replaces."""
    remarks: list[str]
    """Packages that were replaced, and lines that are not used."""
    asked: tuple[Request, ...]
    """The requests of all that are not left out."""
    unavailable: Mapping[str, str] = field(default_factory=dict)
    """Optional nodes with a package that isn't available here, and why. The lock, which other
    machines use too, doesn't have them."""
    retry: tuple[str, ...] = ()
    """Nodes whose packages could not be reached: every run tries them again."""
    missing: tuple[Missing, ...] = ()
    """What builds lacked: a run that finds one of these tries again."""
    as_locked: bool = False
    """Whether the set was known before."""

    @property
    def news(self) -> list[str]:
        """The remarks, and one line for each package that moved."""
        return [*self.remarks, *_moves(self.before, self.python)]


def choose(run: Run, log: Path) -> PackageSet:
    """Choose the lock's set, the last one, or a new one. Raises Failure."""
    asked, refused = packages.collect_requests(run)
    if run.locked:
        asked, missing = _without_unlocked(run, asked)
        refused |= missing
    for fitting in _candidates(run):
        if fitting.asked == packages.locked_form(run, asked):
            left_out = {**fitting.left_out, **refused}
            python = fitting.model_copy(update={"left_out": left_out})
            last = packages.last_resolved(run) or python
            return PackageSet(
                python, last, [], requirements.without_nodes(asked, left_out), as_locked=True
            )
    if run.locked:
        raise Failure(_difference(run, asked))
    before = run.machine.lock.python or packages.last_resolved(run) or _preferred(run, asked)
    return _solve(run, asked, refused, before, log)


def buildable(run: Run, chosen: PackageSet, log: Path) -> PackageSet:
    """Build what must be built here; leave out optional nodes with a package that can't be.

    Raises Failure when something else needs such a package.
    """
    while True:
        python = chosen.python
        problem = resolver.Problem(
            run, chosen.asked, python.asked.torch, python, log, replacements=python.reduced
        )
        broken = source_builds.build_due(problem, python.packages)
        if hard := [each for each in broken if not each.optional_only]:
            raise Failure("\n    ".join(map(str, hard)), log)
        if not broken:
            return chosen
        failing = {name: str(each) for each in reversed(broken) for name in each.optional}
        unreached = {name for each in broken if not each.reachable for name in each.optional}
        fewer = _solve(run, requirements.without_nodes(chosen.asked, failing), {}, python, log)
        chosen = replace(
            fewer,
            python=fewer.python.model_copy(
                update={"left_out": {**python.left_out, **fewer.python.left_out, **failing}}
            ),
            before=chosen.before,
            remarks=[*chosen.remarks, *fewer.remarks],
            unavailable={**chosen.unavailable, **fewer.unavailable, **failing},
            retry=tuple(sorted({*chosen.retry, *fewer.retry, *unreached})),
            missing=(*chosen.missing, *(each.missing for each in broken if each.missing)),
        )


def why_not_installed(run: Run, names: Collection[str], log: Path) -> list[str]:
    """One line for each of these packages that can't be installed."""
    python = packages.required(run)
    asked = requirements.without_nodes(packages.collect_requests(run)[0], python.left_out)
    problem = resolver.Problem(
        run, asked, python.asked.torch, python, log, replacements=python.reduced
    )
    named = {name: each for name, each in python.packages.items() if name in names}
    return source_builds.why_not_installed(problem, named)


def _solve(
    run: Run,
    asked: Iterable[Request],
    refused: Mapping[str, str],
    before: PythonSet | None,
    log: Path,
) -> PackageSet:
    asked = tuple(asked)
    problem = resolver.Problem(run, asked, packages.torch_build(run), before, log)
    if python := additions.extend(problem):
        left_out = {**python.left_out, **refused}
        python = python.model_copy(update={"left_out": left_out})
        remarks = [*preinstalled.remarks(run, asked), *_remarks(asked, python.reduced, before)]
        return PackageSet(python, before, remarks, requirements.without_nodes(asked, left_out))
    solution = resolution.solve(problem)
    # Nodes that are unavailable now are not recorded, so that the next resolution has them again.
    recorded = requirements.without_nodes(asked, solution.unavailable)
    left_out = {**solution.left_out, **solution.unavailable, **refused}
    python = PythonSet(
        asked=packages.locked_form(run, recorded).model_copy(update={"torch": solution.torch}),
        packages=solution.packages,
        left_out=left_out,
        reduced=solution.reduced,
    )
    return PackageSet(
        python,
        before,
        [*preinstalled.remarks(run, asked), *_remarks(asked, solution.reduced, before)],
        requirements.without_nodes(asked, left_out),
        unavailable=solution.unavailable,
        retry=solution.retry,
        missing=solution.missing,
    )


def _preferred(run: Run, asked: Iterable[Request]) -> PythonSet | None:
    """What the lock prefers for the first resolution, as if it had been resolved for this."""
    preferred = run.machine.lock.preferred
    if not preferred:
        return None
    return PythonSet(asked=packages.locked_form(run, asked), packages=preferred)


def _candidates(run: Run) -> list[PythonSet]:
    """The sets that may fit unchanged; none without a lock: a deleted lock's set may be wrong."""
    if run.updates is not None or run.machine.lock.python is None:
        return []
    # The requirements of a kept generation get exactly its packages.
    kept = kept_generations.settled(run.layout)
    others = [] if run.locked else [packages.last_resolved(run), *kept]
    return [each for each in (run.machine.lock.python, *others) if each]


def _without_unlocked(run: Run, asked: list[Request]) -> tuple[list[Request], dict[str, str]]:
    """Leave out, with locked=1, the optional nodes for which the lock has no packages."""
    lock = run.machine.lock.python
    locked = lock.asked.requirements.custom_nodes if lock else {}
    missing = {
        each.node.name: f"machine.lock has no packages for it: run {PROGRAM} lock without locked=1"
        for each in asked
        if each.node and each.node.optional and each.lines and each.node.name not in locked
    }
    kept = [each for each in asked if not (each.node and each.node.name in missing)]
    return kept, missing


def _remarks(
    asked: Iterable[Request], reduced: Mapping[str, str], before: PythonSet | None
) -> list[str]:
    lines = [
        f"{each.owner}: {line} is ignored, since it would apply to every package; "
        "use python.extra_index_urls or python.find_links"
        for each in asked
        for line in each.unused
    ]
    lines += [f"{each.owner}: {remark}" for each in asked for remark in each.remarks]
    previous = before.reduced if before else {}
    replaced = sorted(reduced.items())
    return lines + [f"{n} is replaced by {one}" for n, one in replaced if previous.get(n) != one]


def _moves(before: PythonSet | None, after: PythonSet) -> list[str]:
    if before is None:
        return [f"{len(after.packages)} packages resolved"]
    names = sorted({*before.packages, *after.packages})
    old = {name: package.shown for name, package in before.packages.items()}
    new = {name: package.shown for name, package in after.packages.items()}
    return [
        describe_move(name, old.get(name), new.get(name))
        for name in names
        if old.get(name) != new.get(name)
    ]


def _difference(run: Run, asked: list[Request]) -> str:
    """How the requirements differ from the lock, with what to do."""
    advice = f"run {PROGRAM} lock without locked=1, and commit the lock"
    lock = run.machine.lock.python
    if lock is None:
        return f"machine.lock has no Python packages: {advice}"
    old, new = dumped(lock.asked), dumped(packages.locked_form(run, asked))
    for key in sorted({*old, *new} - {"requirements"}):
        if old.get(key) != new.get(key):
            if key == "python":
                advice = (
                    f"run {PROGRAM} lock with Python {new.get(key)} (an image's: make image-lock)"
                )
            return f"machine.lock is for {key} {old.get(key)}, not {new.get(key)}: {advice}"
    before, now = lock.asked.requirements, requirements.locked_form(asked)
    lines = _changed("ComfyUI", before.comfyui, now.comfyui)
    for node in sorted({*before.custom_nodes, *now.custom_nodes}):
        lines += _changed(node, before.custom_nodes.get(node, ()), now.custom_nodes.get(node, ()))
    return f"machine.lock doesn't have all requirements ({'; '.join(lines)}): {advice}"


def _changed(owner: str, before: tuple[str, ...], now: tuple[str, ...]) -> list[str]:
    added = [f"{owner} now requires {line!r}" for line in now if line not in before]
    return added + [f"{owner} no longer requires {line!r}" for line in before if line not in now]
