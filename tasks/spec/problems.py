"""Problems of a machine file, one line each."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

Loc = tuple["str | int", ...]

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True)
class Problem:
    """One problem: its place, and what to do about it."""

    file: str
    """The machine file, `.env.local`, or `environment`."""
    line: int | None
    """Counted from 1; None when the place has no line."""
    path: str
    """As in `custom_nodes[3].ref`; empty for the file as a whole."""
    message: str

    def __str__(self) -> str:
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        return ": ".join(part for part in (where, self.path, self.message) if part)


MOST_TOLD = 50
"""Problems that are printed."""


class SpecError(Exception):
    """All problems of a machine file and its environment; str() has a line for each of the first
    MOST_TOLD."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        unique = list(dict.fromkeys(problems))
        files = list(dict.fromkeys(problem.file for problem in unique))
        unique.sort(key=lambda problem: (files.index(problem.file), problem.line or 0))
        self.problems: tuple[Problem, ...] = tuple(unique)
        told = [str(problem) for problem in unique[:MOST_TOLD]]
        if more := len(unique) - len(told):
            told.append(f"and {more} more")
        super().__init__("\n".join(told))


def dotted(loc: Loc) -> str:
    """A location as text: `instances.overrides[1].args[0]`."""
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else f".{shown(part)}"
    return text.removeprefix(".")


def shown(text: str, limit: int = 60) -> str:
    """Text from a file, escaped and shortened for one line of a terminal."""
    text = _CONTROL.sub(lambda match: repr(match[0])[1:-1], text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def has_control(text: str) -> bool:
    """Whether text holds a control character."""
    return _CONTROL.search(text) is not None


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """`; did you mean X?`; empty when no known word is similar."""
    from difflib import get_close_matches  # Only needed when there is a problem.

    by_spelling = {name.lower().replace("-", "_"): name for name in names}
    similar = get_close_matches(word.lower().replace("-", "_"), by_spelling, n=1, cutoff=0.6)
    return f"; did you mean {by_spelling[similar[0]]}?" if similar else ""
