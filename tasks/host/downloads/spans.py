"""Which bytes of a download are whose: the spans that its connections have begun."""

from __future__ import annotations

import threading

from .byte_ranges import Range
from .partial_file import Part


class Spans:
    """Spans of a part's missing bytes, each given out once, in order, so the hash can follow."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self._begun: list[Range] = []
        self._lock = threading.Lock()

    def __bool__(self) -> bool:
        """Whether any was begun."""
        return bool(self._begun)

    def claim(self, total: int, longest: int) -> Range | None:
        """The next span that no thread has begun, of at most `longest` bytes."""
        with self._lock:
            for start, end in self._part.missing(total):
                for begun in sorted(self._begun):
                    if begun[0] <= start < begun[1]:
                        start = begun[1]
                if start < end:
                    after = [begun[0] for begun in self._begun if begun[0] > start]
                    span = (start, min([end, start + longest, *after]))
                    self._begun.append(span)
                    return span
        return None
