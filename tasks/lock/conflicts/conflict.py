"""What doesn't fit together: smallest sets of lines that can't be had together.

One line alone is a package that can't be had at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...host.system.failure import Failure
from ..resolver import Answer, Demand


@dataclass(frozen=True)
class Conflict:
    """Lines that can't be had together."""

    core: tuple[Demand, ...]
    answer: Answer
    """uv's to just these."""
    reachable: bool = True
    """False: something could not be reached, so another time there may be no conflict."""
    packages: tuple[str, ...] = ()
    """What they disagree on."""
    overrides: tuple[str, ...] = ()
    """These make them fit; tried."""
    alike: Mapping[Demand, Demand] = field(default_factory=dict)
    """Other lines that conflict in the place of one of these."""
    through: Mapping[Demand, tuple[str, ...]] = field(default_factory=dict)
    """How a line that is of another package comes to need the one that they disagree on."""

    @property
    def optional(self) -> list[str]:
        """The optional nodes in it; it ends when one of them leaves."""
        return [each.node for each in self.core if each.node and each.optional]

    @property
    def losing(self) -> set[Demand]:
        """Without these the others fit: those that an override puts aside, or the last one."""
        lost = {each for each in self.core if each.line.bare not in self.overrides}
        lost = lost if self.overrides and lost else {self.core[-1]}
        return lost | {other for other, one in self.alike.items() if one in lost}

    @property
    def alone(self) -> Demand | None:
        """The line, when it is one that can't be had with no other there."""
        return self.core[0] if len(self.core) == 1 else None


@dataclass(frozen=True)
class ConflictReport:
    """What came of it."""

    answer: Answer
    leaving: Mapping[str, Conflict]
    """Optional nodes that are left out, by name."""
    hard: tuple[Conflict, ...]
    """Conflicts of those that must not be left out."""
    overrides: tuple[str, ...]
    """With these everything but `unresolvable` resolves, tried together; empty: none found."""
    unresolvable: tuple[Conflict, ...]


class NoAnswer(Failure):
    """The index doesn't answer, which is the fault of no line."""

    def __init__(self, answer: Answer, log: Path) -> None:
        super().__init__("no index answers", log)
        self.answer = answer


def chain_to(packages: Iterable[str], parents: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """The shortest way down to one of these packages: who asks for it, and who for that one."""
    ways: list[tuple[str, ...]] = [(name,) for name in packages if name in parents]
    seen = {way[0] for way in ways}
    while ways:
        way = ways.pop(0)
        above = [name for name in parents.get(way[0], ()) if name not in seen]
        if not parents.get(way[0]):
            return way
        seen |= set(above)
        ways += [(name, *way) for name in above]
    return ()
