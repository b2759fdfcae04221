"""Why things fail together, found by asking: a smallest part that fails, and what to leave out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from itertools import combinations
from typing import TypeVar

T = TypeVar("T")


def minimal_core(fails: Callable[[Sequence[T]], bool], items: Sequence[T]) -> list[T]:
    """Some of `items` that fail together and no longer do without any one of them.

    `items` fail as they are, and whatever holds some that fail does too. Of two that would serve
    the earlier one is found. Junker's QuickXplain: k of n are found with some 2k log2(n/k)
    questions.
    """

    def search(base: list[T], fresh: bool, items: Sequence[T]) -> list[T]:
        if fresh and fails(base):
            return []
        if len(items) == 1:
            return list(items)
        half = len(items) // 2
        first, second = items[:half], items[half:]
        late = search([*base, *first], True, second)
        early = search([*base, *late], bool(late), first)
        return [*early, *late]

    return search([], False, items) if items else []


def each_failing(fails: Callable[[Sequence[T]], bool], items: Sequence[T]) -> list[T]:
    """Those of `items` that fail by themselves, where some of them do that fail together."""
    if not items or not fails(items):
        return []
    if len(items) == 1:
        return list(items)
    half = len(items) // 2
    return [*each_failing(fails, items[:half]), *each_failing(fails, items[half:])]


def smallest_hitting_set(cores: Sequence[Collection[T]], order: Sequence[T]) -> frozenset[T]:
    """The smallest set with something of every core; of several the one that is late in `order`.

    Which cores were found first makes no difference.
    """
    left = [frozenset(each) for each in cores]
    forced = {item for each in left if len(each) == 1 for item in each}
    left = [each for each in left if forced.isdisjoint(each)]
    others = [item for item in reversed(order) if any(item in each for each in left)]
    for count in range(len(others) + 1):
        for chosen in combinations(others, count):
            if all(not each.isdisjoint(chosen) for each in left):
                return frozenset([*forced, *chosen])
    raise ValueError("a core is empty, or holds what is not in the order")
