"""Progress of a run: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from ..host.system.progress import Progress, Told, line, share, unheard
from ..host.system.thread_pool import beside

if TYPE_CHECKING:
    from rich import progress as bars
    from rich.console import Console

LINE_EVERY = 10.0
"""Seconds between two lines without a terminal."""
DRAW_EVERY = 0.2
"""Seconds between two updates."""
ROWS = 8
"""Bars at most, besides the total."""


class Board:
    """Where a run shows its progress."""

    def __init__(self) -> None:
        self.console: Console | None = None
        """The terminal while it shows bars: all other output must go through it."""

    def following(
        self, progress: Progress, on_progress: Told = unheard
    ) -> AbstractContextManager[None]:
        """Show `progress` until the body ends; `on_progress` gets the same."""
        show = self._terminal if sys.stdout.isatty() else _lines
        return beside(_watch, show, progress, on_progress)

    @contextlib.contextmanager
    def _terminal(self) -> Iterator[Any]:
        from rich import progress as bars
        from rich.console import Console
        from rich.table import Column

        columns = (
            bars.TextColumn("  {task.description}", table_column=Column(no_wrap=True)),
            bars.BarColumn(bar_width=20),
            bars.DownloadColumn(),
            bars.TransferSpeedColumn(),
            bars.TimeRemainingColumn(compact=True),
        )
        screen = Console()
        with bars.Progress(*columns, console=screen, transient=True) as board:
            self.console = screen
            try:
                yield _Rows(board, screen.width).draw
            finally:
                self.console = None


class _Rows:
    """The bars of a board: the total, and the first ROWS items."""

    def __init__(self, board: bars.Progress, width: int) -> None:
        self._board = board
        self._longest = max(12, width - 60)
        self._rows: dict[str, bars.TaskID] = {}

    def draw(self, shot: dict[str, Any]) -> None:
        names = {item["name"]: item for item in shot["running"][:ROWS]}
        for name in [name for name in self._rows if name and name not in names]:
            self._board.remove_task(self._rows.pop(name))
        every = {"bytes": shot["bytes"], "bytes_done": shot["bytes_done"]}
        title = f"{shot['what']} {shot['files_done']}/{shot['files']}"
        for name, item in {"": every, **names}.items():
            if name not in self._rows:
                self._rows[name] = self._board.add_task(name or title)
            self._board.update(
                self._rows[name],
                total=item["bytes"],
                completed=item["bytes_done"],
                description=_short(name, self._longest) or title,
            )


def _watch(show: Any, progress: Progress, on_progress: Told, ended: threading.Event) -> None:
    with show() as draw:
        while not ended.wait(DRAW_EVERY):
            shot = progress.snapshot()
            draw(shot)
            on_progress(*share(shot))


@contextlib.contextmanager
def _lines() -> Iterator[Any]:
    last = time.monotonic()

    def draw(shot: dict[str, Any]) -> None:
        nonlocal last
        if time.monotonic() - last >= LINE_EVERY:
            last = time.monotonic()
            print(f"  {line(shot)}", flush=True)

    yield draw


def _short(name: str, limit: int) -> str:
    """Cut the start of a long name: the end says more."""
    return name if len(name) <= limit else f"…{name[1 - limit :]}"
