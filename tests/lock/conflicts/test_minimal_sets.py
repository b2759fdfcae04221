"""Smallest parts that fail, and the least that must go, whatever was found first."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import combinations

import pytest

from comfy_machine.lock.conflicts.minimal_sets import minimal_core, smallest_hitting_set


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_a_core_is_what_fails_and_nothing_more(count: int) -> None:
    numbers = random.Random(count)
    for _ in range(40):
        items = list(range(numbers.randint(count, 60)))
        bad = set(numbers.sample(items, count))
        asked = 0

        def fails(some: Sequence[int], bad: set[int] = bad) -> bool:
            nonlocal asked
            asked += 1
            return bad <= set(some)

        assert minimal_core(fails, items) == sorted(bad)
        assert asked <= 2 * count * (len(items).bit_length() + 1)


def test_of_several_cores_the_earliest_is_found() -> None:
    assert minimal_core(lambda some: {3, 7} <= set(some) or {1, 2} <= set(some), range(10)) == [
        1,
        2,
    ]


def test_the_fewest_leave_and_of_equals_the_late_ones_stay_out() -> None:
    assert smallest_hitting_set([{"a", "b"}, {"b", "c"}], "abc") == {"b"}
    assert smallest_hitting_set([{"a", "b"}], "abc") == {"b"}
    assert smallest_hitting_set([{"a"}, {"a", "b"}, {"c", "d"}], "abcd") == {"a", "d"}
    assert smallest_hitting_set([], "abc") == frozenset()


def test_it_makes_no_difference_which_cores_were_found_first() -> None:
    numbers = random.Random(7)
    for _ in range(30):
        cores = [set(numbers.sample("abcdefg", numbers.randint(1, 3))) for _ in range(5)]
        once = smallest_hitting_set(cores, "abcdefg")
        assert smallest_hitting_set(cores[::-1], "abcdefg") == once
        assert all(each & once for each in cores)
        smaller = combinations("abcdefg", len(once) - 1) if once else ()
        assert not any(all(each & set(some) for each in cores) for some in smaller)
