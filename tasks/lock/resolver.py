"""Resolutions by uv: the requirements, their owners, and uv's answer.

uv answers with an exit code: 0, a set that fits; 1, there is none, or something doesn't build or
can't be cloned; 2, something can't be reached or read (uv 0.13). Its output is shown to people
and decides nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..engine.run import Run
from ..host.python import uv
from ..host.repositories import git
from ..host.system import files, process
from ..host.system.failure import Failure
from ..spec import Package, PythonSet
from ..spec.problems import did_you_mean
from . import indexes, pylock
from .requirements import Line, Request, normalized
from .torch_family import TORCH_FAMILY, is_pin, package_names

#: ComfyUI 0.3.64's app/frontend_management.py imports `requests`, which its requirements lack;
#: custom nodes' install scripts call `pip`.
ALWAYS_INSTALLED = ("pip", "requests")
WITHOUT_BACKEND = frozenset(["pypi", "none", "preinstalled"])
"""Choices of torch that are not a uv backend."""
NO_SOLUTION = 1
"""uv's exit code when no set fits."""


@dataclass(frozen=True)
class Demand:
    """One line, and its owner."""

    line: Line
    owner: str
    node: str | None = None
    """The custom node's name."""
    optional: bool = False
    own: bool = False
    """Whether it comes from the lock or from us, not from a requirements file."""

    @property
    def name(self) -> str | None:
        """The package's normalized name; None for a URL without a name."""
        return normalized(self.line.name) if self.line.name else None


@dataclass(frozen=True)
class Answer:
    """uv's answer: the packages, exit code and output."""

    packages: Mapping[str, Package] = field(default_factory=dict)
    code: int | None = 0
    output: str = ""

    @property
    def fits(self) -> bool:
        return self.code == 0


@dataclass(frozen=True)
class Problem:
    """One resolution, and the constraints that its attempts add."""

    run: Run
    asked: tuple[Request, ...]
    torch: str
    """The torch build; `auto` lets uv choose by the driver."""
    before: PythonSet | None
    """The previous set; its versions are preferred."""
    log: Path
    replacements: Mapping[str, str] = field(default_factory=dict)
    """Package → the one that replaces it."""
    matched: Mapping[str, str] = field(default_factory=dict)
    """Member of the torch family → a constraint on it."""
    obey_metadata: bool = True
    """Whether the torch family's metadata applies besides the overrides of it."""

    @property
    def scratch(self) -> Path:
        return self.run.layout.scratch / "resolve"

    def overriding(self, overrides: Sequence[str]) -> Problem:
        """The same problem with these overrides besides machine.yaml's."""
        machine = self.run.machine
        every = (*machine.python.overrides, *overrides)
        python = machine.python.model_copy(update={"overrides": every})
        other = machine.model_copy(update={"python": python})
        return replace(self, run=self.run.with_machine(other))

    @property
    def demands(self) -> list[Demand]:
        """All lines: ComfyUI's, then the nodes' in declared order, then our own constraints."""
        required = [
            Demand(line, each.owner, each.node.name, each.node.optional)
            if each.node
            else Demand(line, each.owner)
            for each in self.asked
            for line in each.lines
        ]
        ours = [Line(t, "machine.lock", n, constraint=True) for n, t in self.limits.items()]
        return [*required, *(Demand(line, "the lock", own=True) for line in ours)]

    @property
    def limits(self) -> dict[str, str]:
        """Our own constraints on the torch family."""
        held = {name: f"{name}=={package.version}" for name, package in self.held.items()}
        matched = {n: text for n, text in self.matched.items() if n not in self.overridden}
        return held | matched

    @property
    def overridden(self) -> set[str]:
        """Packages with a user's override: they get no constraint of ours."""
        return package_names(self.run.machine.python.overrides)

    @property
    def pinned(self) -> list[str]:
        """The overrides that uv gets as constraints.

        An override of torch hides from uv what torchvision and torchaudio require. An exact
        version works as a constraint, and uv then chooses the others to fit.
        """
        overrides = self.run.machine.python.overrides if self.obey_metadata else ()
        return [text for text in overrides if is_pin(text)]

    @property
    def torch_may_move(self) -> bool:
        """Whether an update or a new override unlocks the torch family."""
        if not self.before or self.run.updating("torch", *TORCH_FAMILY):
            return True
        new = set(self.run.machine.python.overrides) - set(self.before.asked.overrides)
        return not package_names(new).isdisjoint(TORCH_FAMILY)

    @property
    def held(self) -> dict[str, Package]:
        """The locked torch family; only `doit update` or an override moves it."""
        if not self.before or self.torch_may_move or self.before.asked.torch != self.torch:
            return {}
        packages = self.before.packages
        return {n: packages[n] for n in TORCH_FAMILY if n in packages and n not in self.overridden}


def resolve(problem: Problem, demands: Iterable[Demand], *options: str) -> Answer:
    """Resolve these lines and what is always installed. uv's failure is an Answer."""
    return run_uv(problem, *_lines(problem, demands), *_upgrades(problem), *options)


def parents(
    problem: Problem, demands: Iterable[Demand], versions: Mapping[str, Package] | None = None
) -> dict[str, tuple[str, ...]]:
    """Each package that these lines resolve to → the packages that require it.

    From uv's annotations, with these `versions` if given; empty when nothing resolves.
    """
    files.remove(problem.scratch)
    problem.scratch.mkdir(parents=True)
    requirements, constraints = _lines(problem, demands)
    fixed = [f"{name}=={each.version}" for name, each in (versions or {}).items() if each.version]
    arguments = _arguments(problem, requirements, [*constraints, *fixed])
    result = problem.scratch / "graph.txt"
    try:
        uv.explain(result, arguments, index_variables(problem.run), problem.log)
    except process.CommandFailed:
        return {}
    lines = re.findall(r"^(\w[\w.-]*)(?:==| @ ).*?\s# via (.+)$", result.read_text(), re.M)
    return {
        normalized(name): tuple(
            normalized(each) for each in via.split(", ") if not each.startswith("-")
        )
        for name, via in lines
    }


def paths_to(package: str, parents: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """Each package that needs this one → the shortest path down to it, without this one."""
    paths: dict[str, tuple[str, ...]] = {package: ()}
    queue = [package]
    for name in queue:
        for parent in parents.get(name, ()):
            if parent not in paths:
                paths[parent] = (parent, *paths[name])
                queue.append(parent)
    return paths


def index_answers(problem: Problem) -> bool:
    """Whether the index answers, past uv's cache."""
    return run_uv(problem, ALWAYS_INSTALLED, (), "--refresh-package", ALWAYS_INSTALLED[0]).fits


def run_uv(
    problem: Problem,
    requirements: Iterable[str],
    constraints: Iterable[str] = (),
    *options: str,
) -> Answer:
    """Call uv once, with these further options."""
    files.remove(problem.scratch)
    problem.scratch.mkdir(parents=True)
    result = problem.scratch / "pylock.toml"
    if problem.before and problem.run.updates != frozenset():
        pylock.write_preferences(result, problem.before.packages)
    arguments = [*_arguments(problem, requirements, constraints), *options]
    try:
        uv.resolve(result, arguments, index_variables(problem.run), problem.log)
    except process.CommandFailed as failed:
        _refuse_unknown_backend(problem.torch)
        return Answer({}, failed.code, failed.output)
    return Answer(pylock.read_packages(result))


def can_clone(line: Line) -> bool:
    """Whether the line's git repository, if any, is reachable."""
    if not line.url or "git+" not in line.text:
        return True
    from git import GitError

    try:
        git.command().ls_remote("--heads", "--", line.url)
    except (GitError, Failure):
        return False
    return True


def _refuse_unknown_backend(torch: str) -> None:
    """Raises Failure for a torch build that uv doesn't know."""
    known = uv.torch_backends()
    if known and torch not in (*WITHOUT_BACKEND, *known):
        hint = did_you_mean(torch, sorted(known, reverse=True)).removesuffix("?")
        advice = f"{hint}?" if hint else f"; there are {', '.join(sorted(known))}"
        raise Failure(f"python.torch: there is no build of torch for {torch}{advice}")


def backend_arguments(torch: str) -> list[str]:
    """uv's arguments for a torch build."""
    return [] if torch in WITHOUT_BACKEND else ["--torch-backend", torch]


def index_variables(run: Run) -> dict[str, str]:
    """uv's variables for indexes and wheel pages besides PyPI. Raises Failure."""
    python = run.machine.python
    return indexes.environment(python.extra_index_urls, run.machine.env) | indexes.find_links(
        python.find_links, run.machine.env
    )


def _lines(problem: Problem, demands: Iterable[Demand]) -> tuple[list[str], list[str]]:
    """The requirements, and the constraints on them."""
    lines = [each for each in demands if not (each.own and each.name not in problem.limits)]
    replacing = sorted(set(problem.replacements.values()) - set(problem.replacements))
    requirements = [each.line.text for each in lines if not each.line.constraint]
    constraints = [each.line.text for each in lines if each.line.constraint]
    return [*ALWAYS_INSTALLED, *requirements, *replacing], constraints


def _arguments(
    problem: Problem, requirements: Iterable[str], constraints: Iterable[str]
) -> list[str | Path]:
    pinned, excludes = problem.pinned, [*problem.replacements]
    overrides = [text for text in problem.run.machine.python.overrides if text not in pinned]
    if problem.torch in ("none", "preinstalled"):
        excludes += TORCH_FAMILY
    return [
        _write_lines(problem, "requirements.txt", requirements),
        *("--constraints", _write_lines(problem, "constraints.txt", [*constraints, *pinned])),
        *("--overrides", _write_lines(problem, "overrides.txt", overrides)),
        *("--excludes", _write_lines(problem, "excludes.txt", excludes)),
        *backend_arguments(problem.torch),
    ]


def _write_lines(problem: Problem, name: str, lines: Iterable[str]) -> Path:
    file = problem.scratch / name
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return file


def _upgrades(problem: Problem) -> list[str]:
    updates = problem.run.updates
    if not problem.before or updates == frozenset():
        return []  # Nothing is preferred.
    locked = set(problem.before.packages)
    moving = locked if updates and "python" in updates else locked & (updates or set())
    names = sorted({*moving, *(TORCH_FAMILY if problem.torch_may_move else ())})
    return [word for name in names for word in ("--upgrade-package", name)]
