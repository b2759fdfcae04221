"""A question to uv: what is asked for, by whom, and what of it fits together.

uv answers with an exit code: 0, a set that fits; 1, there is none, or something doesn't build or
can't be cloned; 2, something can't be reached or read (seen with 0.13). What it says is told to
people and decides nothing.
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
from . import indexes, pylock
from .requirements import Line, Request, normalized
from .torch_family import TORCH_FAMILY, is_pin, package_names

#: `requests` is imported by ComfyUI 0.3.64's app/frontend_management.py, which does not ask
#: for it; `pip` is what custom nodes' install scripts call.
ALWAYS_INSTALLED = ("pip", "requests")
WITHOUT_BACKEND = frozenset(["pypi", "none", "preinstalled"])
"""Choices of torch that are no backend of uv's."""
NO_SOLUTION = 1
"""uv's exit code when it has an answer, and the answer is no."""


@dataclass(frozen=True)
class Demand:
    """One line, and whose it is."""

    line: Line
    owner: str
    node: str | None = None
    """The custom node's name."""
    optional: bool = False
    own: bool = False
    """Nobody wrote it: it is of the lock, or of ours."""

    @property
    def name(self) -> str | None:
        """The package that it is of, None for a URL without a name."""
        return normalized(self.line.name) if self.line.name else None


@dataclass(frozen=True)
class Answer:
    """What uv made of a question."""

    packages: Mapping[str, Package] = field(default_factory=dict)
    code: int | None = 0
    output: str = ""

    @property
    def fits(self) -> bool:
        return self.code == 0


@dataclass(frozen=True)
class Problem:
    """One resolve, and what its attempts add to it."""

    run: Run
    asked: tuple[Request, ...]
    torch: str
    """The build, `auto` to let uv look at the driver."""
    before: PythonSet | None
    """Whose versions are kept where nothing forces them to move."""
    log: Path
    replacements: Mapping[str, str] = field(default_factory=dict)
    """Packages that others replace."""
    matched: Mapping[str, str] = field(default_factory=dict)
    """Constraints on the torch family, by the package that they are on."""
    obey_metadata: bool = True
    """Whether what the torch family says of itself is obeyed beside the overrides of it."""

    @property
    def scratch(self) -> Path:
        return self.run.layout.scratch / "resolve"

    def overriding(self, overrides: Sequence[str]) -> Problem:
        """With these overrides beside those of machine.yaml."""
        machine = self.run.machine
        every = (*machine.python.overrides, *overrides)
        python = machine.python.model_copy(update={"overrides": every})
        other = machine.model_copy(update={"python": python})
        return replace(self, run=self.run.with_machine(other))

    @property
    def demands(self) -> list[Demand]:
        """All lines: ComfyUI's first, then the nodes' as they are declared, last what is held."""
        written = [_demand(each, line) for each in self.asked for line in each.lines]
        return [*written, *(_own_demand(name, text) for name, text in self.limits.items())]

    @property
    def limits(self) -> dict[str, str]:
        """The constraints on the torch family that nobody wrote."""
        held = {name: f"{name}=={package.version}" for name, package in self.held.items()}
        matched = {n: text for n, text in self.matched.items() if n not in self.overridden}
        return held | matched

    @property
    def overridden(self) -> set[str]:
        """What the user decides: no constraint of ours is on these."""
        return package_names(self.run.machine.python.overrides)

    @property
    def pinned(self) -> list[str]:
        """The overrides that are given to uv as constraints.

        One of torch hides from uv what torchvision and torchaudio ask for; as a constraint an
        exact version is as good, and they are chosen to fit it.
        """
        overrides = self.run.machine.python.overrides if self.obey_metadata else ()
        return [text for text in overrides if is_pin(text)]

    @property
    def torch_may_move(self) -> bool:
        """Whether an update or a new override lets the torch family leave the lock's versions."""
        if not self.before or self.run.updating("torch", *TORCH_FAMILY):
            return True
        new = set(self.run.machine.python.overrides) - set(self.before.asked.overrides)
        return not package_names(new).isdisjoint(TORCH_FAMILY)

    @property
    def held(self) -> dict[str, Package]:
        """The torch family of the lock, which only `doit update` or an override moves."""
        if not self.before or self.torch_may_move or self.before.asked.torch != self.torch:
            return {}
        packages = self.before.packages
        return {n: packages[n] for n in TORCH_FAMILY if n in packages and n not in self.overridden}


def resolve(problem: Problem, demands: Iterable[Demand], *options: str) -> Answer:
    """Whether these fit together, with what is always there. Raises nothing of uv's."""
    return run_uv(problem, *_lines(problem, demands), *_upgrades(problem), *options)


def parents(
    problem: Problem, demands: Iterable[Demand], versions: Mapping[str, Package] | None = None
) -> dict[str, tuple[str, ...]]:
    """Each package of what these resolve to, with the packages that ask for it.

    From uv's annotations, in these `versions` where they are given; empty when there is none.
    """
    files.remove(problem.scratch)
    problem.scratch.mkdir(parents=True)
    wanted, constraints = _lines(problem, demands)
    fixed = [f"{name}=={each.version}" for name, each in (versions or {}).items() if each.version]
    arguments = _arguments(problem, wanted, [*constraints, *fixed])
    result = problem.scratch / "graph.txt"
    try:
        uv.explain(result, arguments, index_variables(problem.run), problem.log)
    except process.CommandFailed:
        return {}
    found = re.findall(r"^(\w[\w.-]*)(?:==| @ ).*?\s# via (.+)$", result.read_text(), re.M)
    return {
        normalized(name): tuple(
            normalized(each) for each in via.split(", ") if not each.startswith("-")
        )
        for name, via in found
    }


def index_answers(problem: Problem) -> bool:
    """Whether what is asked of the index, not of the cache, gets an answer."""
    return run_uv(problem, ALWAYS_INSTALLED, (), "--refresh-package", ALWAYS_INSTALLED[0]).fits


def run_uv(
    problem: Problem,
    wanted: Iterable[str],
    constraints: Iterable[str] = (),
    *options: str,
) -> Answer:
    """One call of uv, with these options besides."""
    files.remove(problem.scratch)
    problem.scratch.mkdir(parents=True)
    result = problem.scratch / "pylock.toml"
    if problem.before and problem.run.updates != frozenset():
        pylock.write_preferences(result, problem.before.packages)
    arguments = [*_arguments(problem, wanted, constraints), *options]
    try:
        uv.resolve(result, arguments, index_variables(problem.run), problem.log)
    except process.CommandFailed as failed:
        return Answer({}, failed.code, failed.output)
    return Answer(pylock.read_packages(result))


def can_clone(line: Line) -> bool:
    """Whether its repository can be reached, if it names one."""
    if not line.url or "git+" not in line.text:
        return True
    from git import GitError

    try:
        git.command().ls_remote("--heads", "--", line.url)
    except (GitError, Failure):
        return False
    return True


def backend_arguments(torch: str) -> list[str]:
    """uv's arguments for a choice of torch."""
    return [] if torch in WITHOUT_BACKEND else ["--torch-backend", torch]


def index_variables(run: Run) -> dict[str, str]:
    """uv's variables for where packages are looked for besides PyPI. Raises Failure."""
    python = run.machine.python
    return indexes.environment(python.extra_index_urls, run.machine.env) | indexes.find_links(
        python.find_links, run.machine.env
    )


def _demand(asked: Request, line: Line) -> Demand:
    node = asked.node
    return Demand(line, asked.owner, node.name if node else None, bool(node and node.optional))


def _own_demand(name: str, text: str) -> Demand:
    return Demand(Line(text, "machine.lock", name, constraint=True), "the lock", own=True)


def _lines(problem: Problem, demands: Iterable[Demand]) -> tuple[list[str], list[str]]:
    """What is wanted, and what constrains it."""
    lines = [each for each in demands if not (each.own and each.name not in problem.limits)]
    replacing = sorted(set(problem.replacements.values()) - set(problem.replacements))
    wanted = [each.line.text for each in lines if not each.line.constraint]
    constraints = [each.line.text for each in lines if each.line.constraint]
    return [*ALWAYS_INSTALLED, *wanted, *replacing], constraints


def _arguments(
    problem: Problem, wanted: Iterable[str], constraints: Iterable[str]
) -> list[str | Path]:
    pinned, excludes = problem.pinned, [*problem.replacements]
    overrides = [text for text in problem.run.machine.python.overrides if text not in pinned]
    if problem.torch in ("none", "preinstalled"):
        excludes += TORCH_FAMILY
    return [
        _write_lines(problem, "requirements.txt", wanted),
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
    known = set(problem.before.packages)
    moving = known if updates and "python" in updates else known & (updates or set())
    names = sorted({*moving, *(TORCH_FAMILY if problem.torch_may_move else ())})
    return [word for name in names for word in ("--upgrade-package", name)]
