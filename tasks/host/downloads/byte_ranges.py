"""Which bytes of a file are there, as half-open ranges; which span each thread fetches."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator

Range = tuple[int, int]


class Ranges:
    """A set of byte positions, as sorted, disjoint ranges."""

    def __init__(self, ranges: Iterable[Range] = ()) -> None:
        self._ranges: list[Range] = []
        for start, end in ranges:
            self.add(start, end)

    def __iter__(self) -> Iterator[Range]:
        return iter(self._ranges)

    def add(self, start: int, end: int) -> None:
        if start >= end:
            return
        apart = [each for each in self._ranges if each[1] < start or each[0] > end]
        touched = [each for each in self._ranges if not (each[1] < start or each[0] > end)]
        merged = (min([start, *(a for a, _ in touched)]), max([end, *(b for _, b in touched)]))
        self._ranges = sorted([*apart, merged])

    def missing(self, size: int) -> list[Range]:
        """The gaps between them, up to `size`."""
        gaps, position = [], 0
        for start, end in [*self._ranges, (size, size)]:
            if position < min(start, size):
                gaps.append((position, min(start, size)))
            position = max(position, end)
        return gaps

    @property
    def prefix(self) -> int:
        """The number of contiguous bytes from the start."""
        return self._ranges[0][1] if self._ranges and self._ranges[0][0] == 0 else 0

    @property
    def total(self) -> int:
        return sum(end - start for start, end in self._ranges)


class Spans:
    """Spans of the missing bytes, each handed out once, in order, so that the hash can follow."""

    def __init__(self, missing: Callable[[int], list[Range]]) -> None:
        """`missing` returns the gaps of a file of that size."""
        self._missing = missing
        self._claimed: list[Range] = []
        self._lock = threading.Lock()

    def __bool__(self) -> bool:
        """Whether any span was claimed."""
        return bool(self._claimed)

    def claim(self, size: int, longest: int) -> Range | None:
        """The next unclaimed span of a file of `size` bytes, at most `longest` bytes long."""
        with self._lock:
            for start, end in self._missing(size):
                for claimed in sorted(self._claimed):
                    if claimed[0] <= start < claimed[1]:
                        start = claimed[1]
                if start < end:
                    later = [claimed[0] for claimed in self._claimed if claimed[0] > start]
                    span = (start, min([end, start + longest, *later]))
                    self._claimed.append(span)
                    return span
        return None
