"""The packages that a conflict is about, and overrides that solve it, tried on its lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from .. import resolver
from ..resolver import Demand
from .conflict import Conflict, chain_to
from .inquiry import Inquiry
from .minimal_sets import each_failing, minimal_core

MAX_CANDIDATES = 40
"""Packages that are tried as the subject of a conflict."""


def with_overrides(
    inquiry: Inquiry,
    conflict: Conflict,
    demands: Sequence[Demand],
    earlier: Sequence[Conflict] = (),
    before: Sequence[str] = (),
) -> Conflict:
    """The conflict with its packages, overrides that solve it, and further lines in it.

    Tries the overrides of `known` conflicts first; those of `before` already apply.
    """
    if any(each.own and each.name in inquiry.problem.held for each in conflict.core):
        return conflict  # Unlocking torch solves it.
    if not conflict.reachable or (conflict.alone and conflict.alone.line.url):
        return conflict
    found = _from_earlier(inquiry, conflict, earlier) or _find_overrides(inquiry, conflict, before)
    solved = replace(conflict, packages=found[0], overrides=found[1])
    return replace(
        solved, alike=_alike(inquiry, solved, demands), through=_through(inquiry, solved)
    )


def _from_earlier(
    inquiry: Inquiry, conflict: Conflict, earlier: Sequence[Conflict]
) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """The packages and overrides of a known conflict that solve this one too."""
    for each in earlier:
        if each.overrides and inquiry.ask(conflict.core, each.overrides).fits:
            return each.packages, each.overrides
    return None


def _find_overrides(
    inquiry: Inquiry, conflict: Conflict, before: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The packages that it is about, and an override for each that solves it."""
    packages = _disputed(inquiry, conflict, before)
    overrides = list(packages)
    for number, name in enumerate(packages):
        texts = [each.line.bare for each in conflict.core if each.name == name and not each.own]
        for text in () if conflict.alone else texts:
            tried = [*overrides[:number], text, *overrides[number + 1 :]]
            if inquiry.ask(conflict.core, [*before, *tried]).fits:
                overrides = tried
                break
    return packages, tuple(overrides)


def _disputed(inquiry: Inquiry, conflict: Conflict, before: Sequence[str]) -> tuple[str, ...]:
    """The fewest packages that make the lines fit when each may have any version; () if none."""
    lines = conflict.core
    needed = [_needs(inquiry, each) for each in lines]
    often = {name: sum(name in each for each in needed) for name in set().union(*needed)}
    names = {each.name for each in lines if each.name}
    output = conflict.answer.output
    ranked = sorted(
        names | {name for name, count in often.items() if count > 1},
        key=lambda name: (-often[name], name not in names, name not in output, name),
    )[:MAX_CANDIDATES]
    if not ranked or not inquiry.ask(lines, [*before, *ranked]).fits:
        return ()
    return tuple(minimal_core(lambda some: inquiry.ask(lines, [*before, *some]).fits, ranked))


def _needs(inquiry: Inquiry, demand: Demand) -> set[str]:
    """The packages that a line leads to, including its own."""
    own = {demand.name} if demand.name else set()
    return own if demand.line.constraint else own | set(inquiry.ask([demand]).packages)


def _alike(inquiry: Inquiry, conflict: Conflict, demands: Sequence[Demand]) -> dict[Demand, Demand]:
    """Other lines on the same packages → the line of the conflict that each could replace."""
    replaceable: dict[Demand, Demand] = {}
    for one in conflict.core:
        if one.own or one.name not in conflict.packages or conflict.alone:
            continue
        others = [
            each
            for each in demands
            if each.name == one.name and each not in conflict.core and not each.own
        ]
        rest = [each for each in conflict.core if each is not one]

        def fails(some: Sequence[Demand], rest: Sequence[Demand] = rest) -> bool:
            return not inquiry.ask([*rest, *some]).fits

        same = [each for each in others if each.line.bare == one.line.bare]
        # A line that accepts any version conflicts with nothing.
        settled = {*same, *replaceable, *(each for each in others if each.line.is_plain)}
        candidates = [each for each in others if each not in settled]
        replaceable |= dict.fromkeys([*same, *each_failing(fails, candidates)], one)
    return replaceable


def _through(inquiry: Inquiry, conflict: Conflict) -> dict[Demand, tuple[str, ...]]:
    return {
        each: chain
        for each in conflict.core
        if not each.own and each.name not in conflict.packages and len(conflict.core) > 1
        if (chain := chain_to(conflict.packages, resolver.parents(inquiry.problem, [each])))
    }
