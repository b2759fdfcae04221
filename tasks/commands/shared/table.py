"""The table of `doit status`: in full for programs, folded to fit a terminal.

Nothing is ever cut off: people copy pids from here. (And no rich, whose import takes a sixth of the
whole command.)
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

FOLDED_FIRST = ("restarts", "memory", "GPU", "uptime", "queue", "pid", "port")
"""Columns that move below their row where the terminal is too narrow, one after the other."""
GAP, INDENT = "  ", "    "
NARROWEST = 20
"""Columns that folded text has at least."""


@dataclass(frozen=True)
class TableLine:
    """One line; `state` is what a colour is for."""

    before: str
    state: str = ""
    after: str = ""


def lines(
    headings: Sequence[str], rows: Sequence[Sequence[str]], width: int | None
) -> Iterator[TableLine]:
    """The table in at most `width` columns, where words allow that; None: as wide as it is.

    The last column but one is the state; the last one says why not, or is empty.
    """
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    why = len(headings) - 1
    shown = _shown(headings, widths, width)
    # The line below the headings ends with theirs, however long the reasons are.
    heading = GAP.join(headings[n].ljust(widths[n]) if n != why else headings[n] for n in shown)
    yield TableLine(heading.rstrip())
    yield TableLine("─" * len(heading))
    for row in rows:
        cells = [row[n].ljust(widths[n]) if n != why else row[n] for n in shown]
        state = shown.index(why - 1)
        before = "".join(f"{cell}{GAP}" for cell in cells[:state])
        padding = " " * (widths[why - 1] - len(row[why - 1]))
        after = "".join(f"{GAP}{cell}" for cell in cells[state + 1 :] if cell)
        yield TableLine(before, row[why - 1], f"{padding}{after}" if after else "")
        folded = [f"{headings[n]} {row[n]}" for n in range(why) if n not in shown]
        for text in (", ".join(folded), "" if why in shown else row[why]):
            yield from _folded(text, width)


def _shown(headings: Sequence[str], widths: Sequence[int], width: int | None) -> list[int]:
    """The columns that fit."""
    shown = list(range(len(headings)))
    for heading in (headings[-1], *FOLDED_FIRST):
        if width is None or sum(widths[n] + len(GAP) for n in shown) - len(GAP) <= width:
            break
        if heading in headings:
            shown.remove(len(headings) - 1 - headings[::-1].index(heading))
    return shown


def _folded(text: str, width: int | None) -> Iterator[TableLine]:
    room = max(NARROWEST, (width or 0) - len(INDENT))
    for line in textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False):
        yield TableLine(f"{INDENT}{line}")
