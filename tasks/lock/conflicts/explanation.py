"""Conflicts in words: the lines and their owners, and what would solve the conflict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from ...host.python import build_log, uv_errors
from ...host.system.failure import Failure
from ...host.system.program_files import PROGRAM
from ..resolver import NO_SOLUTION, Demand, Problem
from .conflict import Conflict, ConflictReport, NoAnswer

NOT_RESOLVED = "packages can't be resolved"
MANY_CONFLICTS = 3
"""Conflicts of one custom node from which the failure names that node."""
MAX_WIDTH = 400
"""Characters above which a conflict takes several lines."""


def failure(verdict: ConflictReport, problem: Problem) -> Failure:
    """All conflicts, one line each, and the overrides that solve them together."""
    lines = [_wrap(_describe(each, problem)) for each in verdict.hard]
    advice = list(_advice(verdict))
    if len(lines) == 1:
        return Failure("; ".join([f"{NOT_RESOLVED}: {lines[0]}", *advice]), problem.log)
    first = f"{NOT_RESOLVED}, for {len(lines)} reasons:"
    return Failure("\n    ".join([first, *lines, *advice, *_common_node(verdict)]), problem.log)


def _common_node(verdict: ConflictReport) -> Iterator[str]:
    """A line about the custom node that is in most of many conflicts."""
    counted = Counter(
        name for each in verdict.hard for name in {demand.node for demand in each.core} if name
    )
    for name, number in counted.most_common(1):
        if number >= MANY_CONFLICTS and 2 * number > len(verdict.hard):
            yield (
                f"custom node {name} is in {number} of these: try another ref of it, or set "
                "optional: true to continue without it"
            )


def no_answer_failure(error: NoAnswer) -> Failure:
    """The failure when no line is at fault."""
    output = error.answer.output
    cause = uv_errors.refused(output) or uv_errors.gist(output)
    if error.answer.code != NO_SOLUTION:
        cause += f": check that it is reachable, then run {PROGRAM} again"
    return Failure(f"{NOT_RESOLVED}: {cause}", error.log)


def left_out_reason(conflict: Conflict, problem: Problem) -> str:
    """Why an optional node is left out, in one line."""
    line = _describe(conflict, problem)
    if conflict.overrides:
        line += f"; to keep it, set python.overrides: {list(conflict.overrides)}"
    return f"{NOT_RESOLVED}: {line}"


def missing_for_build(conflict: Conflict) -> build_log.Missing | None:
    """What a build lacked, if the conflict is a failed build."""
    if conflict.alone and conflict.reachable:
        return build_log.missing(conflict.answer.output)
    return None


def _describe(conflict: Conflict, problem: Problem) -> str:
    if conflict.alone:
        return _describe_single(conflict, conflict.alone, problem)
    parts = [
        _asks(each, conflict)
        for each in problem.demands
        if (each in conflict.core or each in conflict.alike) and not each.own
    ]
    parts += [_describe_own(each, problem) for each in conflict.core if each.own]
    if not conflict.reachable or not (conflict.packages or len(parts) > len(conflict.core)):
        parts.append(uv_errors.gist(conflict.answer.output))
    return "; ".join(parts)


def _wrap(text: str) -> str:
    """One line for each custom node when the text is long."""
    if len(text) > MAX_WIDTH:
        text = text.replace("; custom node ", ";\n      custom node ")
    return text


def _asks(demand: Demand, conflict: Conflict) -> str:
    text = f"{demand.owner} requires {demand.line.text!r} ({demand.line.place})"
    if chain := conflict.through.get(demand):
        through = f" through {', '.join(chain[1:-1])}" if chain[1:-1] else ""
        text += f", which needs {chain[-1]}{through}"
    return text


def _describe_own(demand: Demand, problem: Problem) -> str:
    held = problem.held.get(str(demand.name))
    if held:
        return f"the lock holds {demand.name} {held.version} ({PROGRAM} update torch moves it)"
    return (
        f"{demand.line.text} matches torch and torchaudio, whose metadata doesn't "
        "(python.overrides has precedence)"
    )


def _describe_single(conflict: Conflict, demand: Demand, problem: Problem) -> str:
    text = _asks(demand, conflict)
    if not conflict.reachable:
        return (
            f"{text}, which can't be reached ({uv_errors.gist(conflict.answer.output)}): "
            f"check that it is reachable, then run {PROGRAM} again"
        )
    if lacks := missing_for_build(conflict):
        return f"{text}, which can't be built: {lacks}"
    text += f", which isn't available: {uv_errors.gist(conflict.answer.output)}"
    dropped = [p for each in problem.asked if each.owner == demand.owner for p in each.places]
    if dropped and not demand.line.url:
        lines = f"its line{'s' if dropped[1:] else ''} {' and '.join(dropped)}"
        text += (
            f"; {lines} {'are' if dropped[1:] else 'is'} ignored: if the package is there, add "
            "that place to python.extra_index_urls"
        )
    return text


def _advice(verdict: ConflictReport) -> Iterator[str]:
    if overrides := list(verdict.overrides):
        these = "this" if len(overrides) == 1 else "these together"
        conflicts = "it" if len(verdict.hard) == 1 else "them"
        conflicts = "the others" if verdict.unresolvable else conflicts
        yield f"{these} would solve {conflicts}: python.overrides: {overrides}"
        return
    # The descriptions of single lines, and of conflicts with the lock, say what to do.
    explained = [each for each in verdict.unresolvable if each.alone or any(
        demand.own for demand in each.core)]  # fmt: skip
    if len(explained) < len(verdict.hard):
        yield "correct those lines, or set python.overrides"
