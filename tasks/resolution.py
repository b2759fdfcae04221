"""One resolve for all: which version of every package fits ComfyUI and every custom node."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from tasks.conflicts import blame, normal, refused
from tasks.host import files, indexes, process, pylock, uv
from tasks.host.failure import Failure
from tasks.requirements import Asked
from tasks.spec import CustomNode, Machine, Package, PythonSet
from tasks.spec.twins import FAMILIES, chosen
from tasks.torch_family import TORCH_FAMILY, is_pin, matched, named

#: `requests` is imported by ComfyUI 0.3.64's app/frontend_management.py, which does not ask
#: for it; `pip` is what custom nodes' install scripts call.
ALWAYS = ("pip", "requests")
NO_INDEX = frozenset(["pypi", "none", "preinstalled"])
"""Choices of torch that are no backend of uv's."""


@dataclass(frozen=True)
class Problem:
    """One resolve, and what its attempts add to it."""

    machine: Machine
    asked: tuple[Asked, ...]
    torch: str
    """The build, `auto` to let uv look at the driver."""
    before: PythonSet | None
    """Whose versions are kept where nothing forces them to move."""
    log: Path
    instead: Mapping[str, str] = field(default_factory=dict)
    """Packages that others replace."""
    matched: Mapping[str, str] = field(default_factory=dict)
    """Constraints on the torch family, by the package that they are on."""
    metadata_counts: bool = True
    """Whether what the torch family says of itself is obeyed beside the overrides of it."""

    @property
    def scratch(self) -> Path:
        return self.machine.layout.scratch / "resolve"

    def without(self, node: CustomNode) -> Problem:
        return replace(self, asked=tuple(each for each in self.asked if each.node != node))

    def overriding(self, override: str) -> Problem:
        python = self.machine.python
        python = python.model_copy(update={"overrides": (*python.overrides, override)})
        return replace(self, machine=self.machine.model_copy(update={"python": python}))

    @property
    def overridden(self) -> set[str]:
        """What the user decides: no constraint of ours is on these."""
        return named(self.machine.python.overrides)

    @property
    def pinned(self) -> list[str]:
        """The overrides that are given to uv as constraints.

        One of torch hides from uv what torchvision and torchaudio ask for; as a constraint an
        exact version is as good, and they are chosen to fit it.
        """
        overrides = self.machine.python.overrides if self.metadata_counts else ()
        return [text for text in overrides if is_pin(text)]

    @property
    def freed(self) -> bool:
        """Whether an update or a new override lets the torch family leave the lock's versions."""
        if not self.before or self.machine.updating("torch", *TORCH_FAMILY):
            return True
        new = set(self.machine.python.overrides) - set(self.before.asked.overrides)
        return not named(new).isdisjoint(TORCH_FAMILY)

    @property
    def held(self) -> dict[str, Package]:
        """The torch family of the lock, which only `doit update` or an override moves."""
        if not self.before or self.freed or self.before.asked.torch != self.torch:
            return {}
        packages = self.before.packages
        return {n: packages[n] for n in TORCH_FAMILY if n in packages and n not in self.overridden}


@dataclass(frozen=True)
class Solution:
    """What fits together, and what had to go for it."""

    packages: dict[str, Package]
    left_out: dict[str, str]
    unreachable: dict[str, str]
    """Optional nodes whose packages could not be had now: to be tried again by every run."""
    reduced: dict[str, str]
    torch: str


def solve(problem: Problem) -> Solution:
    """Raises Failure naming who asks for what, and an override that would settle it."""
    left_out: dict[str, str] = {}
    unreachable: dict[str, str] = {}
    lines = [line for each in problem.asked for line in each.lines]
    direct = {normal(line.name) for line in lines if line.name and line.applies}
    problem = replace(problem, instead=_twins(problem, direct))
    while True:
        try:
            packages = _compile(problem)
        except process.CommandFailed as failed:
            if problem.pinned:
                problem = replace(problem, metadata_counts=False, matched={})
                continue
            if refusal := refused(failed.output):
                said = f"packages can't be resolved: {refusal}"
                raise Failure(said, problem.log) from failed
            conflict = blame(problem.asked, failed.output, problem.held, problem.matched)
            if not conflict.optional:
                said = conflict.explain(partial(_resolves, problem))
                raise Failure(said, problem.log) from failed
            node = _least(problem, conflict.optional)
            away = left_out if conflict.is_final else unreachable
            away[node.name] = conflict.explain()
            problem = problem.without(node)
            continue
        twins = _twins(problem, packages)
        matching = _matched(problem, packages)
        if set(twins.values()) <= set(packages) and not matching:
            # Who goes has asked for nothing that the one that stays doesn't ask for.
            return Solution(
                packages={n: package for n, package in packages.items() if n not in twins},
                left_out=left_out,
                unreachable=unreachable,
                reduced=_instead(problem.instead, twins),
                torch=_build(problem, packages),
            )
        problem = replace(
            problem,
            instead=_instead(problem.instead, twins),
            matched={**problem.matched, **matching},
        )


def backend(torch: str) -> list[str]:
    """uv's arguments for a choice of torch."""
    return [] if torch in NO_INDEX else ["--torch-backend", torch]


def places(machine: Machine) -> dict[str, str]:
    """uv's variables for where packages are looked for besides PyPI. Raises Failure."""
    python = machine.python
    return indexes.environment(python.extra_index_urls, machine.env) | indexes.find_links(
        python.find_links, machine.env
    )


def _compile(problem: Problem, *, offline: bool = False) -> dict[str, Package]:
    """What uv resolves all that is asked for to. Raises CommandFailed."""
    lines = [line for each in problem.asked for line in each.lines]
    replacing = set(problem.instead.values()) - set(problem.instead)
    wanted = [*ALWAYS, *(line.text for line in lines if not line.constraint), *sorted(replacing)]
    ours = {name: f"{name}=={package.version}" for name, package in problem.held.items()}
    ours |= {n: text for n, text in problem.matched.items() if n not in problem.overridden}
    constraints = [*(line.text for line in lines if line.constraint), *ours.values()]
    packages = _call(problem, wanted, constraints, _upgrades(problem), offline=offline)
    return _with_asked_hashes(problem, packages)


def _call(
    problem: Problem,
    wanted: Iterable[str],
    constraints: Iterable[str],
    upgrades: Iterable[str] = (),
    *,
    offline: bool = False,
) -> dict[str, Package]:
    """One call of uv. Raises CommandFailed."""
    files.remove(problem.scratch)
    problem.scratch.mkdir(parents=True)
    result = problem.scratch / "pylock.toml"
    if problem.before and problem.machine.updates != frozenset():
        pylock.write(result, problem.before.packages)
    pinned, excludes = problem.pinned, [*problem.instead]
    overrides = [text for text in problem.machine.python.overrides if text not in pinned]
    if problem.torch in ("none", "preinstalled"):
        excludes += TORCH_FAMILY
    arguments: list[str | Path] = [
        _listed(problem, "requirements.txt", wanted),
        *("--constraints", _listed(problem, "constraints.txt", [*constraints, *pinned])),
        *("--overrides", _listed(problem, "overrides.txt", overrides)),
        *("--excludes", _listed(problem, "excludes.txt", excludes)),
        *backend(problem.torch),
        *(word for name in upgrades for word in ("--upgrade-package", name)),
        *(["--offline"] if offline else []),
    ]
    uv.resolve(result, arguments, places(problem.machine), problem.log)
    return pylock.read(result)


def _with_asked_hashes(problem: Problem, packages: dict[str, Package]) -> dict[str, Package]:
    """Of each package the files that a requirement with hashes allows, which uv doesn't check."""
    for each in problem.asked:
        for line in each.lines:
            package = packages.get(normal(line.name or ""))
            if not package or not line.hashes or not line.applies:
                continue
            allowed = tuple(digest for digest in package.sha256 if digest in line.hashes)
            if not allowed:
                raise Failure(
                    f"{each.owner} asks for {line.name} by hashes that no file of "
                    f"{package.shown} has ({line.place}): correct them in a fork",
                    problem.log,
                )
            packages[normal(line.name or "")] = package.model_copy(update={"sha256": allowed})
    return packages


def _listed(problem: Problem, name: str, lines: Iterable[str]) -> Path:
    file = problem.scratch / name
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return file


def _upgrades(problem: Problem) -> list[str]:
    updates = problem.machine.updates
    if not problem.before or updates == frozenset():
        return []  # Nothing is preferred.
    known = set(problem.before.packages)
    moving = known if updates and "python" in updates else known & (updates or set())
    return sorted({*moving, *(TORCH_FAMILY if problem.freed else ())})


def _least(problem: Problem, optional: list[CustomNode]) -> CustomNode:
    """The one to leave out: the last declared of those without which all others fit, if any."""
    ordered = sorted(optional, key=problem.machine.custom_nodes.index, reverse=True)
    alone = (node for node in ordered if _resolves(problem.without(node)))
    return next(alone, ordered[0]) if len(ordered) > 1 else ordered[0]


def _resolves(problem: Problem, override: str | None = None) -> bool:
    """Whether it would, as far as uv's cache can tell."""
    try:
        _compile(problem.overriding(override) if override else problem, offline=True)
    except process.CommandFailed:
        return False
    return True


def _twins(problem: Problem, packages: Iterable[str]) -> dict[str, str]:
    """Which of these packages to replace by which others of their families."""
    instead: dict[str, str] = {}
    for family, members in FAMILIES.items():
        there = members & set(packages)
        if not there:
            continue
        preferred = problem.machine.python.prefer.get(family)
        one = preferred or chosen(family, there, cuda=problem.torch != "cpu")
        instead |= {name: one for name in there if name != one}
    return instead


def _instead(before: Mapping[str, str], more: Mapping[str, str]) -> dict[str, str]:
    """Each that goes with the one that stays; one that stayed before may go now."""
    return {**{gone: more.get(one, one) for gone, one in before.items()}, **more}


def _matched(problem: Problem, packages: Mapping[str, Package]) -> dict[str, str]:
    """What holds torch and torchaudio together where nothing that they say of themselves does.

    torchaudio up to 2.11.0 asks for no torch.
    """
    versions = {n: packages[n].version for n in ("torch", "torchaudio") if n in packages}
    if None in versions.values() or len(versions) < 2:
        return {}
    if not problem.metadata_counts and problem.overridden.intersection(versions):
        return {}
    fixed = {*problem.held, *problem.overridden, *problem.matched}
    found = matched({name: str(version) for name, version in versions.items()}, fixed)
    return {} if found and _asks_for(problem, packages, "torchaudio", "torch") else found


def _asks_for(problem: Problem, packages: Mapping[str, Package], one: str, other: str) -> bool:
    """Whether a chosen package's metadata names the other: then, resolved alone, it brings it.

    uv has that metadata in its cache by now, from whichever index or folder it took the package.
    """
    chosen = {name: f"{name}=={packages[name].version}" for name in (one, other)}
    return other in _call(problem, [chosen[one]], [chosen[other]])


def _build(problem: Problem, packages: Mapping[str, Package]) -> str:
    """The torch build that came out; uv's own `auto` tells by the version, 2.9.0+cu128."""
    if problem.torch != "auto":
        return problem.torch
    torch = packages.get("torch")
    _, _, local = str(torch.version if torch else "").partition("+")
    return local or "pypi"
