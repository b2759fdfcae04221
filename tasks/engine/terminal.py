"""Lines at the end of a terminal that are drawn again and again, below what is printed."""

from __future__ import annotations

import os
from typing import TextIO

from rich.console import Console
from rich.control import Control
from rich.live import Live
from rich.segment import ControlType
from rich.text import Text

from .board_lines import Line, columns

_OUTDATED = ("COLUMNS", "LINES")
"""Variables that would hide a change of the size."""


class Terminal:
    """Raises OSError when the terminal is gone."""

    def __init__(self, out: TextIO) -> None:
        environ = {name: value for name, value in os.environ.items() if name not in _OUTDATED}
        self._console = Console(file=out, _environ=environ, highlight=False)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._drawn: list[int] = []
        """Columns of each line that is on the screen."""
        self._live.start()

    @property
    def is_unicode(self) -> bool:
        return self._console.encoding.startswith("utf")

    def size(self) -> tuple[int, int]:
        """Columns and lines that may be drawn. The last column stays free: some terminals wrap
        there."""
        width, height = self._console.size
        return max(1, width - 1), max(1, height - 1)

    def draw(self, lines: list[Line]) -> None:
        self._go_back_over_wrapped_lines()
        self._drawn = [sum(columns(text) for text, _ in line) for line in lines]
        self._live.update(Text("\n").join(map(_assembled, lines)), refresh=True)

    def show(self, text: str) -> None:
        """Print above the lines. Long ones are wrapped by the terminal, so that they can be copied
        whole."""
        self._console.print(Text.from_ansi(text), end="", soft_wrap=True)

    def close(self) -> None:
        """Remove the lines; the cursor comes back."""
        self._go_back_over_wrapped_lines()
        self._live.stop()

    def _go_back_over_wrapped_lines(self) -> None:
        """In a terminal that became narrower, lines take more rows than when they were drawn."""
        width = max(1, self._console.size.width)
        wrapped = sum(max(0, -(-each // width) - 1) for each in self._drawn)
        if wrapped:
            erase: tuple[ControlType, int] = (ControlType.ERASE_IN_LINE, 2)
            self._console.control(Control(ControlType.CARRIAGE_RETURN, erase))
            for _ in range(wrapped):
                self._console.control(Control((ControlType.CURSOR_UP, 1), erase))
            self._drawn = []


def _assembled(line: Line) -> Text:
    return Text.assemble(*line, no_wrap=True, overflow="crop", end="")
