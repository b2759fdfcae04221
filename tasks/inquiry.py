"""All conflicts of a problem, found by asking uv again, with less and less, until nothing can go.

Optional nodes leave, the fewest that end every conflict; for the conflicts of others overrides
are looked for, and tried together.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from tasks import question
from tasks.conflicts import Conflict, Unanswered, Verdict, chain_to
from tasks.cores import core, fewest
from tasks.engine import journal
from tasks.question import REFUSED, Answer, Demand, Problem
from tasks.requirements import normal

CANDIDATES = 40
"""Packages of which it is tried whether they are what a conflict is about."""
ROUNDS = 12
"""How often more overrides are looked for when those that were found don't do together."""


class Inquiry:
    """Questions about one problem; what was asked before isn't asked again."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self._answers: dict[tuple[frozenset[Demand], tuple[str, ...]], Answer] = {}

    def ask(self, demands: Iterable[Demand], overrides: Sequence[str] = ()) -> Answer:
        # In their order, on which uv's answer may depend.
        wanted = set(demands)
        key = frozenset(wanted), tuple(overrides)
        if key not in self._answers:
            count = len(self._answers)
            if count > 1:
                journal.tell("lock", None, f"looking for what doesn't fit, question {count}")
            ordered = [each for each in self.problem.demands if each in wanted]
            self._answers[key] = question.ask(self.problem, ordered, overrides)
        return self._answers[key]

    def verdict(self) -> Verdict:
        """Raises Failure when nothing could be asked."""
        demands = self.problem.demands
        answer = self.ask(demands)
        found: list[Conflict] = []
        hard: list[Conflict] = []
        away: set[Demand] = set()
        leaving: frozenset[str] = frozenset()
        order = [node.name for node in self.problem.machine.custom_nodes]
        while not answer.fits:
            conflict = self._conflict(_without(demands, leaving, away), answer)
            if conflict.optional:
                found.append(conflict)
                leaving = fewest([each.optional for each in found], order)
            else:
                conflict = self._settled(conflict, _without(demands, leaving, ()))
                away |= conflict.losing
                _add(hard, conflict)
            answer = self.ask(_without(demands, leaving, away))
        kept = _without(demands, leaving, ())
        overrides = self._together(hard, kept)
        hopeless = tuple(each for each in hard if not each.overrides)
        reasons = {} if hard else {n: self._reason(n, found, kept, demands) for n in leaving}
        return Verdict(answer, reasons, tuple(hard), overrides, hopeless)

    def _conflict(
        self, demands: Sequence[Demand], answer: Answer, overrides: Sequence[str] = ()
    ) -> Conflict:
        """One of those among lines that don't fit."""
        if not self.ask([]).fits:
            raise Unanswered(self.ask([]), self.problem.log)
        demands = self._narrowed(demands, answer, overrides)
        lines = tuple(core(lambda some: not self.ask(some, overrides).fits, demands))
        answer = self.ask(lines, overrides)
        if len(lines) > 1 or answer.code == REFUSED:
            clonable = len(lines) > 1 or question.clonable(lines[0].line)
            return Conflict(lines, answer, reachable=answer.code == REFUSED and clonable)
        if not lines[0].line.url and not question.reachable(self.problem):
            raise Unanswered(answer, self.problem.log)
        return Conflict(lines, answer, reachable=False)

    def _narrowed(
        self, demands: Sequence[Demand], answer: Answer, overrides: Sequence[str]
    ) -> Sequence[Demand]:
        """Fewer of them that don't fit either: what uv names, if it is that, or a few owners'.

        Its words only say where to look first.
        """
        words = {normal(word) for word in re.findall(r"[A-Za-z0-9][\w.-]*", answer.output)}
        likely = [
            each
            for each in demands
            if each.name in words or (each.line.url and each.line.url in answer.output)
        ]
        if 0 < len(likely) < len(demands) and not self.ask(likely, overrides).fits:
            return likely
        groups: dict[str, list[Demand]] = {}
        for each in demands:
            groups.setdefault(each.owner, []).append(each)
        few = core(
            lambda some: not self.ask([d for group in some for d in group], overrides).fits,
            list(groups.values()),
        )
        return [each for group in few for each in group]

    def _settled(
        self, conflict: Conflict, demands: Sequence[Demand], before: Sequence[str] = ()
    ) -> Conflict:
        """With what it is about, the overrides that settle it, and whose lines are in it too.

        `before` are overrides that hold already.
        """
        if any(each.own and each.name in self.problem.held for each in conflict.core):
            return conflict  # That the lock lets go of torch settles it.
        lines = conflict.core
        if not conflict.reachable or (conflict.alone and conflict.alone.line.url):
            return conflict
        packages = self._disputed(conflict, before)
        if not packages:
            return conflict
        overrides = list(packages)
        for number, name in enumerate(packages):
            texts = [each.line.bare for each in lines if each.name == name and not each.own]
            for text in texts if len(lines) > 1 else ():
                tried = [*overrides[:number], text, *overrides[number + 1 :]]
                if self.ask(lines, [*before, *tried]).fits:
                    overrides = tried
                    break
        settled = replace(conflict, packages=packages, overrides=tuple(overrides))
        return replace(settled, alike=self._alike(settled, demands), through=self._through(settled))

    def _disputed(self, conflict: Conflict, before: Sequence[str]) -> tuple[str, ...]:
        """The fewest packages that, each in any version, make the lines fit; () if none do."""
        lines = conflict.core
        needed = [self._needs(each) for each in lines]
        names = [name for each in lines if (name := each.name)]
        often = {name for name in names if names.count(name) > 1}
        shared = [n for n in set().union(*needed) if sum(n in each for each in needed) > 1]
        said = conflict.answer.output
        ranked = sorted(
            {*names, *shared}, key=lambda name: (name not in often, name not in said, name)
        )[:CANDIDATES]
        if not ranked or not self.ask(lines, [*before, *ranked]).fits:
            return ()
        return tuple(core(lambda some: self.ask(lines, [*before, *some]).fits, ranked))

    def _needs(self, demand: Demand) -> set[str]:
        """The packages that a line brings, itself among them."""
        own = {demand.name} if demand.name else set()
        return own if demand.line.constraint else own | set(self.ask([demand]).packages)

    def _alike(self, conflict: Conflict, demands: Sequence[Demand]) -> dict[Demand, Demand]:
        """Which other lines on the same packages conflict in the place of one of these."""
        found: dict[Demand, Demand] = {}
        same = {each.line.bare: each for each in conflict.core}
        others = [
            each
            for each in demands
            if each.name in conflict.packages and each not in conflict.core and not each.own
        ]
        for other in others if len(conflict.core) > 1 else ():
            for one in conflict.core:
                if one.own or one.name != other.name:
                    continue
                rest = [each for each in conflict.core if each is not one]
                twin = same.get(other.line.bare) is one
                if twin or not self.ask([*rest, other]).fits:
                    found[other] = one
                    break
        return found

    def _through(self, conflict: Conflict) -> dict[Demand, tuple[str, ...]]:
        return {
            each: chain
            for each in conflict.core
            if not each.own and each.name not in conflict.packages and len(conflict.core) > 1
            if (chain := chain_to(conflict.packages, question.parents(self.problem, [each])))
        }

    def _together(self, hard: list[Conflict], kept: Sequence[Demand]) -> tuple[str, ...]:
        """Overrides with which all that is kept resolves, but for what has no mend.

        Conflicts that hid behind the others are added to them.
        """
        overrides = list(dict.fromkeys(text for each in hard for text in each.overrides))
        lost = {demand for each in hard if not each.overrides for demand in each.losing}
        kept = [each for each in kept if each not in lost]
        for _ in range(ROUNDS if overrides else 0):
            answer = self.ask(kept, overrides)
            if answer.fits:
                return tuple(overrides)
            more = self._settled(self._conflict(kept, answer, overrides), kept, overrides)
            if not self.ask(more.core).fits:
                _add(hard, more)
            if set(more.overrides) <= set(overrides):
                break
            overrides += [text for text in more.overrides if text not in overrides]
        return ()

    def _reason(
        self,
        node: str,
        found: Sequence[Conflict],
        kept: Sequence[Demand],
        demands: Sequence[Demand],
    ) -> Conflict:
        """The conflict for which a node leaves; its overrides would keep it, or there are none."""
        conflict = next(each for each in found if node in each.optional)
        lines = [*kept, *(each for each in demands if each.node == node)]
        settled = self._settled(conflict, lines)
        if settled.overrides and not self.ask(lines, settled.overrides).fits:
            return replace(settled, overrides=())
        return settled


def _without(
    demands: Iterable[Demand], nodes: Collection[str], lines: Collection[Demand]
) -> list[Demand]:
    return [each for each in demands if each.node not in nodes and each not in lines]


def _add(conflicts: list[Conflict], conflict: Conflict) -> None:
    """Add it, or make it a part of one that is settled in the same way."""
    for number, known in enumerate(conflicts):
        if known.overrides and known.overrides == conflict.overrides:
            loser = next(each for each in known.core if each in known.losing)
            winner = next((each for each in known.core if each not in known.losing), loser)
            more = {
                each: loser if each in conflict.losing else winner
                for each in (*conflict.core, *conflict.alike)
                if each not in known.core
            }
            through = {**known.through, **conflict.through}
            conflicts[number] = replace(known, alike={**known.alike, **more}, through=through)
            return
    conflicts.append(conflict)
