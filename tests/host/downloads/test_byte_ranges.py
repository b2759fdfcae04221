"""Ranges of bytes, against a set of numbers."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from comfy_machine.host.downloads.byte_ranges import Ranges

SPANS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=12)


def positions(spans: list[tuple[int, int]]) -> set[int]:
    return {number for start, end in spans for number in range(start, end)}


@given(SPANS)
def test_ranges_are_a_set_of_positions_sorted_and_apart(spans: list[tuple[int, int]]) -> None:
    ranges = Ranges(spans)
    kept = list(ranges)
    assert positions(kept) == positions(spans)
    assert ranges.total == len(positions(spans))
    assert all(start < end for start, end in kept)
    assert all(before[1] < after[0] for before, after in pairwise(kept))


@given(SPANS, st.integers(0, 70))
def test_what_is_missing_is_the_rest_up_to_a_size(spans: list[tuple[int, int]], size: int) -> None:
    missing = Ranges(spans).missing(size)
    assert all(start < end for start, end in missing)
    assert missing == sorted(missing)
    assert positions(missing) == set(range(size)) - positions(spans)


@given(SPANS)
def test_the_prefix_ends_at_the_first_byte_that_is_not_there(spans: list[tuple[int, int]]) -> None:
    assert Ranges(spans).prefix == min(set(range(62)) - positions(spans))
