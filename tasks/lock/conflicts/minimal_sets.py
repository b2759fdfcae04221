"""Minimal failing subsets, found by trying, and the smallest set that breaks all of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from itertools import combinations
from typing import TypeVar

T = TypeVar("T")


def minimal_core(fails: Callable[[Sequence[T]], bool], items: Sequence[T]) -> list[T]:
    """A minimal subset of `items` that fails: without any one of its items it doesn't.

    `items` must fail, and so must every superset of a failing set. Prefers earlier items.
    Junker's QuickXplain (AAAI 2004): finds k of n items with about 2k log2(n/k) questions.
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
    """The items that fail by themselves, by bisection: a group fails if one of its items does."""
    if not items or not fails(items):
        return []
    if len(items) == 1:
        return list(items)
    half = len(items) // 2
    return [*each_failing(fails, items[:half]), *each_failing(fails, items[half:])]


def smallest_hitting_set(cores: Sequence[Collection[T]], order: Sequence[T]) -> frozenset[T]:
    """The smallest set with an item of every core; among equals, the latest in `order`.

    The order of the cores makes no difference. Raises ValueError for an empty core, or one with
    an item that isn't in `order`.
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
