"""Questions to uv about one problem, and minimal parts of it that don't fit."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence

from .. import resolver
from ..requirements import normalized
from ..resolver import NO_SOLUTION, Answer, Demand, Problem
from .conflict import Conflict, NoAnswer
from .minimal_sets import minimal_core


class Inquiry:
    """Asks uv about parts of one problem; repeated questions are answered from memory."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self._answers: dict[tuple[frozenset[Demand], tuple[str, ...]], Answer] = {}
        self._whole: dict[frozenset[Demand], Answer] = {}

    def ask(self, demands: Iterable[Demand], overrides: Sequence[str] = ()) -> Answer:
        """Whether these lines fit; use `ask_all` for the packages to install."""
        key = frozenset(demands)
        answer = self._guess(key, overrides)
        if not answer.fits and (key, tuple(overrides)) not in self._answers:
            answer = self._put(key, overrides)
            self._answers[key, tuple(overrides)] = answer
        return answer

    def _guess(self, demands: frozenset[Demand], overrides: Sequence[str]) -> Answer:
        """The answer from uv's cache alone, which is fast. A fit is final; a failure isn't, since
        the cache may lack something.
        """
        key = demands, tuple(overrides)
        if key in self._answers:
            return self._answers[key]
        answer = self._put(demands, overrides, "--offline")
        if answer.fits:
            self._answers[key] = answer
        return answer

    def _put(self, demands: frozenset[Demand], overrides: Sequence[str], *options: str) -> Answer:
        count = len(self._answers)
        self.problem.run.progress("lock", None, f"looking for conflicts, question {count}")
        problem = self.problem.overriding(overrides) if overrides else self.problem
        return resolver.resolve(problem, self._ordered(demands), *options)

    def ask_all(self, demands: Iterable[Demand]) -> Answer:
        """The newest versions that fit, for installation."""
        key = frozenset(demands)
        if key not in self._whole:
            self._whole[key] = resolver.resolve(self.problem, self._ordered(key))
            self._answers[key, ()] = self._whole[key]
        return self._whole[key]

    def _ordered(self, demands: Collection[Demand]) -> list[Demand]:
        """The lines in declared order, which may influence uv's answer."""
        return [each for each in self.problem.demands if each in demands]

    def conflict(self, demands: Sequence[Demand], overrides: Sequence[str] = ()) -> Conflict | None:
        """A minimal conflict among these lines; None when they fit. Raises NoAnswer."""
        some = self._narrowed(demands, overrides)
        if some is None:
            return None
        if not self.ask([]).fits:
            raise NoAnswer(self.ask([]), self.problem.log)
        lines = tuple(minimal_core(lambda few: not self.ask(few, overrides).fits, some))
        answer = self.ask(lines, overrides)
        if answer.fits:  # The failure before was not due to the lines.
            raise NoAnswer(self.ask(demands, overrides), self.problem.log)
        if len(lines) > 1 or answer.code == NO_SOLUTION:
            clonable = len(lines) > 1 or resolver.can_clone(lines[0].line)
            return Conflict(lines, answer, reachable=answer.code == NO_SOLUTION and clonable)
        if not lines[0].line.url and not resolver.index_answers(self.problem):
            raise NoAnswer(answer, self.problem.log)
        return Conflict(lines, answer, reachable=False)

    def _narrowed(
        self, demands: Sequence[Demand], overrides: Sequence[str]
    ) -> Sequence[Demand] | None:
        """Fewer lines that still don't fit: those that uv's output mentions, or a few owners'.

        The output only says where to look first. None when all fit.
        """
        for answers in (self._guess, self.ask):
            answer = answers(frozenset(demands), overrides)
            if answer.fits:
                return None
            likely = _mentioned(demands, answer.output)
            if len(likely) < len(demands) and not self.ask(likely, overrides).fits:
                return likely
        groups: dict[str, list[Demand]] = {}
        for each in demands:
            groups.setdefault(each.owner, []).append(each)
        few = minimal_core(
            lambda some: not self.ask([d for group in some for d in group], overrides).fits,
            list(groups.values()),
        )
        return [each for group in few for each in group]


def _mentioned(demands: Iterable[Demand], output: str) -> list[Demand]:
    words = {normalized(word) for word in re.findall(r"[A-Za-z0-9][\w.-]*", output)}
    return [
        each
        for each in demands
        if each.name in words or (each.line.url and each.line.url in output)
    ]
