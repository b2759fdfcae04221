"""Conflicts in words: whose lines they are, what they are about, what would settle them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from ...host.python import build_log, uv_errors
from ...host.system.failure import Failure
from ..resolver import REFUSED, Demand, Problem
from .conflict import Conflict, Unanswered, Verdict

NO = "packages can't be resolved"
MANY = 3
"""Conflicts of one custom node after which it is named as such."""
WIDE = 400
"""Characters above which a conflict has several lines."""


def failure(verdict: Verdict, problem: Problem) -> Failure:
    """All that is in the way, one line each, and what was tried together and settles it."""
    lines = [_folded(_line(each, problem)) for each in verdict.hard]
    mend = list(_mend(verdict))
    if len(lines) == 1:
        return Failure("; ".join([f"{NO}: {lines[0]}", *mend]), problem.log)
    first = f"{NO}, for {len(lines)} reasons:"
    return Failure("\n    ".join([first, *lines, *mend, *_often(verdict)]), problem.log)


def _often(verdict: Verdict) -> Iterator[str]:
    """The custom node that most of many conflicts have in common."""
    counted = Counter(
        name
        for each in verdict.hard
        for name in {demand.node for demand in (each.alone,) if demand}
        | {demand.node for demand in each.core}
        if name
    )
    for name, number in counted.most_common(1):
        if number >= MANY and 2 * number > len(verdict.hard):
            yield (
                f"custom node {name} is in {number} of these: another ref of it may do, or "
                "optional: true, with which the others go on without it"
            )


def unanswered(error: Unanswered) -> Failure:
    """What to say when the fault is no line's."""
    output = error.answer.output
    said = uv_errors.refused(output) or uv_errors.gist(output)
    if error.answer.code != REFUSED:
        said += ": see that it can be reached, then run doit again"
    return Failure(f"{NO}: {said}", error.log)


def reason(conflict: Conflict, problem: Problem) -> str:
    """Why an optional node is left out, in one line."""
    line = _line(conflict, problem)
    if conflict.overrides:
        line += f"; this would keep it: python.overrides: {list(conflict.overrides)}"
    return f"{NO}: {line}"


def missing(conflict: Conflict) -> build_log.Missing | None:
    """What a build lacked, if the conflict is a package that didn't build."""
    if conflict.alone and conflict.reachable:
        return build_log.missing(conflict.answer.output)
    return None


def _line(conflict: Conflict, problem: Problem) -> str:
    if conflict.alone:
        return _of_one(conflict, conflict.alone, problem)
    parts = [
        _asks(each, conflict)
        for each in problem.demands
        if (each in conflict.core or each in conflict.alike) and not each.own
    ]
    parts += [_own(each, problem) for each in conflict.core if each.own]
    if not conflict.reachable or not (conflict.packages or len(parts) > len(conflict.core)):
        parts.append(uv_errors.gist(conflict.answer.output))
    return "; ".join(parts)


def _folded(text: str) -> str:
    """A line each for those who ask, where there are many of them."""
    return text if len(text) <= WIDE else text.replace("; custom node ", ";\n      custom node ")


def _asks(demand: Demand, conflict: Conflict) -> str:
    text = f"{demand.owner} asks for {demand.line.text!r} ({demand.line.place})"
    if chain := conflict.through.get(demand):
        through = f" through {', '.join(chain[1:-1])}" if chain[1:-1] else ""
        text += f", which needs {chain[-1]}{through}"
    return text


def _own(demand: Demand, problem: Problem) -> str:
    held = problem.held.get(str(demand.name))
    if held:
        return f"the lock holds {demand.name} {held.version} (doit update torch lets it move)"
    return (
        f"{demand.line.text} matches torch and torchaudio, whose metadata doesn't "
        "(python.overrides wins over that)"
    )


def _of_one(conflict: Conflict, demand: Demand, problem: Problem) -> str:
    text = _asks(demand, conflict)
    if not conflict.reachable:
        return (
            f"{text}, which can't be reached ({uv_errors.gist(conflict.answer.output)}): "
            "see that it can be, then run doit again"
        )
    if lacks := missing(conflict):
        return f"{text}, which can't be built: {lacks}"
    text += f", which can't be had: {uv_errors.gist(conflict.answer.output)}"
    dropped = [p for each in problem.asked if each.owner == demand.owner for p in each.places]
    if dropped and not demand.line.url:
        lines = f"its line{'s' if dropped[1:] else ''} {' and '.join(dropped)}"
        text += (
            f"; {lines} {'are' if dropped[1:] else 'is'} not used: if it is there, name that in "
            "python.extra_index_urls"
        )
    return text


def _mend(verdict: Verdict) -> Iterator[str]:
    found, hopeless = verdict.overrides, [each for each in verdict.hopeless if not each.alone]
    if found:
        what = "this" if len(found) == 1 else "these together"
        which = " the others" if verdict.hopeless else " it" if len(verdict.hard) == 1 else " them"
        yield f"{what} would settle{which}: python.overrides: {list(found)}"
    elif len(verdict.hopeless) < len(verdict.hard) or (hopeless and not _lock_lets_go(hopeless)):
        yield "correct those lines, or settle it with python.overrides"


def _lock_lets_go(conflicts: Sequence[Conflict]) -> bool:
    """Whether what to do is said already."""
    return all(any(demand.own for demand in each.core) for each in conflicts)
