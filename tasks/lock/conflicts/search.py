"""Find all conflicts of a problem by asking uv about smaller and smaller parts.

Leaves out the fewest optional nodes that solve the conflicts; for conflicts without an optional
node it looks for overrides and tries them together.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from .. import resolver
from ..resolver import NO_SOLUTION, Demand
from . import override_trials
from .conflict import Conflict, ConflictReport, NoAnswer
from .inquiry import Inquiry
from .minimal_sets import smallest_hitting_set

MAX_ROUNDS = 12
"""Rounds of looking for more overrides when those found don't work together."""


def find_conflicts(inquiry: Inquiry) -> ConflictReport:
    """Raises NoAnswer."""
    demands = inquiry.problem.demands
    found: list[Conflict] = []
    hard: list[Conflict] = []
    losing: set[Demand] = set()
    leaving: frozenset[str] = frozenset()
    order = [node.name for node in inquiry.problem.run.machine.custom_nodes]
    answer, rest = inquiry.ask_all(demands), demands
    if (
        not answer.fits
        and answer.code != NO_SOLUTION
        and not resolver.index_answers(inquiry.problem)
    ):
        raise NoAnswer(answer, inquiry.problem.log)
    while not answer.fits:
        while conflict := inquiry.conflict(rest):
            if conflict.optional:
                found.append(conflict)
                leaving = smallest_hitting_set([each.optional for each in found], order)
            else:
                conflict = override_trials.with_overrides(
                    inquiry, conflict, _without(demands, leaving, ()), hard
                )
                losing |= conflict.losing
                _add(hard, conflict)
            rest = _without(demands, leaving, losing)
        if hard:
            break
        answer = inquiry.ask_all(rest)
    kept = _without(demands, leaving, ())
    overrides = _combined_overrides(inquiry, hard, kept)
    unresolvable = tuple(each for each in hard if not each.overrides)
    reasons = {} if hard else {n: _reason(inquiry, n, found, kept, demands) for n in leaving}
    return ConflictReport(answer, reasons, tuple(hard), overrides, unresolvable)


def _combined_overrides(
    inquiry: Inquiry, hard: list[Conflict], kept: Sequence[Demand]
) -> tuple[str, ...]:
    """Overrides with which all kept lines resolve, except those of unresolvable conflicts.

    Adds further conflicts that it finds to `hard`.
    """
    overrides = list(dict.fromkeys(text for each in hard for text in each.overrides))
    lost = {demand for each in hard if not each.overrides for demand in each.losing}
    kept = [each for each in kept if each not in lost]
    for _ in range(MAX_ROUNDS if overrides else 0):
        conflict = inquiry.conflict(kept, overrides)
        if conflict is None:
            return tuple(overrides)
        more = override_trials.with_overrides(inquiry, conflict, kept, (), overrides)
        if not inquiry.ask(more.core).fits:
            _add(hard, more)
        if set(more.overrides) <= set(overrides):
            break
        overrides += [text for text in more.overrides if text not in overrides]
    return ()


def _reason(
    inquiry: Inquiry,
    node: str,
    found: Sequence[Conflict],
    kept: Sequence[Demand],
    demands: Sequence[Demand],
) -> Conflict:
    """The conflict for which a node is left out; its overrides, if any, would keep it."""
    conflict = next(each for each in found if node in each.optional)
    lines = [*kept, *(each for each in demands if each.node == node)]
    solved = override_trials.with_overrides(inquiry, conflict, lines)
    if solved.overrides and not inquiry.ask(lines, solved.overrides).fits:
        return replace(solved, overrides=())
    return solved


def _without(
    demands: Iterable[Demand], nodes: Collection[str], lines: Collection[Demand]
) -> list[Demand]:
    return [each for each in demands if each.node not in nodes and each not in lines]


def _add(conflicts: list[Conflict], conflict: Conflict) -> None:
    """Add a conflict, or merge it into one with the same overrides."""
    for number, other in enumerate(conflicts):
        if other.overrides and other.overrides == conflict.overrides:
            loser = next(each for each in other.core if each in other.losing)
            winner = next((each for each in other.core if each not in other.losing), loser)
            more = {
                each: loser if each in conflict.losing else winner
                for each in (*conflict.core, *conflict.alike)
                if each not in other.core
            }
            through = {**other.through, **conflict.through}
            conflicts[number] = replace(other, alike={**other.alike, **more}, through=through)
            return
    conflicts.append(conflict)
