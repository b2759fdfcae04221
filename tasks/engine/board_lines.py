"""What a board shows: one line for each step that is in progress, cut to the terminal's width."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..host.system.progress import Progress, share
from ..host.system.units import duration, size

Span = tuple[str, str]
"""A text and its style, as rich names them."""
Line = list[Span]

FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
PLAIN_FRAMES = "|/-\\"
FILES = 8
"""Files at most that are shown below a step."""
NAME = 22
"""Columns of a step's name, and fewer in a narrow terminal."""
BAR = 16
NARROW = 79
"""Columns below which what a step does may have a line of its own."""
WITH_LEFT = 50
"""Columns from which the time left is shown, …"""
WITH_BAR = 100
"""… and from which there is a bar."""


@dataclass
class Row:
    """A step in progress."""

    name: str
    began: float
    """Monotonic seconds."""
    detail: str = ""
    """What it does now."""
    percent: float | None = None
    usual: float | None = None
    """Seconds that it took the last time."""
    progress: Progress | None = None
    """Its files, if it moves any."""
    told: float = 0.0
    """When it was last told of without a terminal, in monotonic seconds, and how often."""
    times_told: int = 0


@dataclass(frozen=True)
class Look:
    """How a step stands at one moment."""

    name: str
    elapsed: float
    percent: float | None
    left: float | None
    """Seconds; None: unknown."""
    detail: str
    files: list[dict[str, Any]] = field(default_factory=list)
    """name, bytes (None: unknown) and bytes_done of each in progress."""

    def told(self) -> str:
        """As a line for logs."""
        share_ = "" if self.percent is None else f"{self.percent:.0f} %, "
        left = "" if self.left is None else f", about {duration(self.left)} left"
        return f"… {self.name}: {share_}{self.detail} ({duration(self.elapsed)}{left})"


def look(row: Row, now: float) -> Look:
    elapsed = now - row.began
    if row.progress is None:
        left = _left(row.percent, elapsed, row.usual)
        return Look(row.name, elapsed, row.percent, left, row.detail)
    shot = row.progress.snapshot()
    percent, _ = share(shot)
    running = shot["running"][:FILES]
    return Look(row.name, elapsed, percent, shot["seconds_left"], _bytes(shot), running)


def _left(percent: float | None, elapsed: float, usual: float | None) -> float | None:
    if percent is not None and percent >= 1:
        return elapsed * (100 - min(percent, 100)) / percent
    return usual - elapsed if usual is not None and usual >= elapsed + 1 else None


def _bytes(shot: dict[str, Any]) -> str:
    """The most useful first, since the end is cut off in a narrow terminal."""
    done, total = shot["bytes_done"], shot["bytes"]
    of = f" of {size(total)}" if total is not None else ""
    failed = f", {shot['files_failed']} failed" if shot["files_failed"] else ""
    files = f"{shot['files_done']} of {shot['files']} files{failed}"
    return f"{size(done)}{of}, {size(shot['rate'])}/s, {files}"


def lines(looks: Sequence[Look], footer: str, width: int, height: int, frame: str) -> list[Line]:
    """The board, at most `height` lines of at most `width` columns."""
    rows = [line for each in looks for line in _step(each, width, frame)]
    most = max(1, height - bool(footer))
    if len(rows) > most:
        rows = [*rows[: most - 1], [(cut(f"  … and {len(rows) - most + 1} more", width), "dim")]]
    return [*rows, *([[(cut(f"  {footer}", width), "dim")]] if footer else [])]


def _step(look: Look, width: int, frame: str) -> Iterator[Line]:
    """Name and elapsed time always; then what fits of share, time left, bar, and detail."""
    name = min(NAME, max(12, width // 4))
    line: Line = [(f"{frame} ", "cyan"), (fit(look.name, name), "bold"), ("  ", "")]
    right: Line = [(f"{duration(look.elapsed):>8}", "dim")]
    if look.left is not None and width >= WITH_LEFT:
        right.insert(0, (f"{duration(look.left):>7} left", ""))
    if look.percent is not None:
        bar = _bar(look.percent) if width >= WITH_BAR else []
        line += [*bar, (f"{look.percent:3.0f} %  ", "green")]
    room = max(0, width - sum(columns(text) for text, _ in [*line, *right]))
    below = width < NARROW and columns(look.detail) > room
    yield [*line, (fit("" if below else look.detail, room), ""), *right]
    if below:
        yield [(fit(f"    {look.detail}", width), "")]
    for each in look.files:
        yield _file(each, width)


def _file(file: dict[str, Any], width: int) -> Line:
    total, done = file["bytes"], file["bytes_done"]
    right = f"{size(done)} of {size(total)}" if total is not None else size(done)
    percent = f"{100 * done / total:3.0f} %" if total else ""
    right = f"{percent}  {right:>20}" if width >= NARROW else f"{percent:>6}"
    name = fit(file["name"], max(0, width - columns(right) - 6), from_start=True)
    return [(f"    {name}  ", ""), (right, "green")]


def _bar(percent: float) -> Line:
    done = round(BAR * min(percent, 100) / 100)
    return [("━" * done, "green"), ("─" * (BAR - done), "dim"), (" ", "")]


def fit(text: str, width: int, *, from_start: bool = False) -> str:
    """Exactly `width` columns of a text, cut at its end or, `from_start`, at its start."""
    text = printable(text)
    if from_start and columns(text) > width:
        text = f"…{cut(text[::-1], max(0, width - 1), mark='')[::-1]}" if width else ""
    text = cut(text, width)
    return text + " " * (width - columns(text))


def cut(text: str, width: int, mark: str = "…") -> str:
    """At most `width` columns of a text."""
    if columns(text) <= width:
        return text
    kept, used = "", columns(mark)
    if width < used:
        return ""
    for character in text:
        used += columns(character)
        if used > width:
            break
        kept += character
    return kept + mark


def columns(text: str) -> int:
    """How many columns of a terminal a text takes."""
    if text.isascii():
        return len(text)
    return sum(map(_columns_of, text))


def _columns_of(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def printable(text: str) -> str:
    """Without what would move the terminal's cursor."""
    return "".join(character if character.isprintable() else " " for character in text)
