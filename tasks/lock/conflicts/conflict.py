"""Conflicts: minimal sets of lines that can't be resolved together.

A set of one line means that its package isn't available at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...host.system.failure import Failure
from ..resolver import Answer, Demand, paths_to


@dataclass(frozen=True)
class Conflict:
    """Lines that can't be resolved together."""

    core: tuple[Demand, ...]
    answer: Answer
    """uv's answer to just these lines."""
    reachable: bool = True
    """False: something could not be reached, so there may be no conflict later."""
    packages: tuple[str, ...] = ()
    """The packages that they disagree on."""
    overrides: tuple[str, ...] = ()
    """Overrides that solve it, tried."""
    alike: Mapping[Demand, Demand] = field(default_factory=dict)
    """Another line → the line of `core` that it could replace in the conflict."""
    through: Mapping[Demand, tuple[str, ...]] = field(default_factory=dict)
    """A line for another package → the chain of packages to the one they disagree on."""

    @property
    def optional(self) -> list[str]:
        """The optional nodes in it; leaving out one of them solves it."""
        return [each.node for each in self.core if each.node and each.optional]

    @property
    def losing(self) -> set[Demand]:
        """Without these lines the others fit: those that an override replaces, or the last one."""
        lost = {each for each in self.core if each.line.bare not in self.overrides}
        lost = lost if self.overrides and lost else {self.core[-1]}
        return lost | {other for other, one in self.alike.items() if one in lost}

    @property
    def alone(self) -> Demand | None:
        """The only line, if its package isn't available even alone."""
        return self.core[0] if len(self.core) == 1 else None


@dataclass(frozen=True)
class ConflictReport:
    """All conflicts of a problem, and the answer without them."""

    answer: Answer
    leaving: Mapping[str, Conflict]
    """Optional node to leave out → its conflict."""
    hard: tuple[Conflict, ...]
    """Conflicts without an optional node."""
    overrides: tuple[str, ...]
    """With these everything but `unresolvable` resolves, tried together; empty: none found."""
    unresolvable: tuple[Conflict, ...]


class NoAnswer(Failure):
    """The index doesn't answer; no line is at fault."""

    def __init__(self, answer: Answer, log: Path) -> None:
        super().__init__("no index answers", log)
        self.answer = answer


def chain_to(packages: Iterable[str], parents: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """The shortest chain from a package without parents down to one of these."""
    chains = [
        (*path, package)
        for package in packages
        if package in parents
        for top, path in paths_to(package, parents).items()
        if not parents.get(top)
    ]
    return min(chains, key=len, default=())
