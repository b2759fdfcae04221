"""The board of a run or a command: what is in progress, as living lines on a terminal, and as a
line now and then elsewhere.

A thread draws it. What else is printed goes through `show`, and appears above it.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, TextIO

from ..host.system.progress import OnProgress, Progress, ignore_progress, share
from ..host.system.redaction import redact
from ..host.system.thread_pool import beside
from . import signals
from .board_lines import FRAMES, PLAIN_FRAMES, Row, lines, look

if TYPE_CHECKING:
    from .terminal import Terminal

DRAW_EVERY = 0.2
"""Seconds between two drawings."""
APPEARS = 0.4
"""Seconds before a step is shown; most are done by then."""
FIRST_LINE, LONGEST_PAUSE = 2.0, 30.0
"""Seconds until the first line about a step where there is no terminal; each further pause is twice
as long, up to the longest."""
LOCK_PATIENCE = 1.0
"""Seconds that the end of the process waits for a drawing."""
_current: ContextVar[str] = ContextVar("step")


def is_terminal(out: TextIO) -> bool:
    """Whether lines that are drawn again and again have their place there."""
    return out.isatty() and os.environ.get("TERM", "") not in ("", "dumb", "unknown")


def tell_a_person(line: str) -> None:
    """Print on standard error, if that is a terminal: programs read what a command prints."""
    if sys.stderr.isatty():
        print(f"  {line}", file=sys.stderr, flush=True)


class Board:
    """Every method may be called from any thread."""

    def __init__(self) -> None:
        self.out: Callable[[], TextIO] = lambda: sys.stdout
        self.tell: Callable[[str], object] = tell_a_person
        """Prints a line about what is in progress, where there is no terminal."""
        self.footer: Callable[[], str] = lambda: ""
        self._rows: dict[str, Row] = {}
        self._lock = threading.RLock()
        """Of the rows; not held while anything is printed, so a stopped terminal stops no step."""
        self._printing = threading.RLock()
        self._terminal: Terminal | None = None
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, name: str, detail: str = "", usual: float | None = None) -> None:
        """Show a step from now on; `usual` is how many seconds it took the last time."""
        with self._lock:
            self._rows[name] = Row(name, time.monotonic(), detail, usual=usual)
            if self._thread is None:
                self._ended.clear()
                self._thread = threading.Thread(target=self._keep, daemon=True)
                self._thread.start()

    def finish(self, name: str) -> None:
        with self._lock:
            self._rows.pop(name, None)

    def update(self, name: str, percent: float | None, detail: str) -> None:
        """How far a step is, and what it does."""
        with self._lock:
            if row := self._rows.get(name):
                row.percent, row.detail = percent, redact(detail)

    def close(self) -> None:
        """Remove the board from the terminal."""
        self._ended.set()
        with self._lock:
            self._rows.clear()
            self._thread = None
        # A thread that waits for a stopped terminal keeps the lock.
        if self._printing.acquire(timeout=LOCK_PATIENCE):
            try:
                self._leave_terminal()
            finally:
                self._printing.release()

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Let `current` be this step in the body."""
        token = _current.set(name)
        try:
            yield
        finally:
            _current.reset(token)

    @property
    def current(self) -> str:
        """The step that this thread works on; empty: none."""
        return _current.get("")

    def following(
        self, progress: Progress, on_progress: OnProgress = ignore_progress
    ) -> AbstractContextManager[None]:
        """Show the files of `progress` until the body ends; `on_progress` gets the same."""
        return self._following(progress, on_progress)

    @contextmanager
    def _following(self, progress: Progress, on_progress: OnProgress) -> Iterator[None]:
        name = self.current or progress.what
        with self._lock:
            own = name not in self._rows
            if own:
                self.start(name)
            self._rows[name].progress = progress
        try:
            with beside(_report, progress, on_progress):
                yield
        finally:
            if own:
                self.finish(name)
                self.close()
            else:
                with self._lock:
                    if row := self._rows.get(name):
                        row.progress = None

    def show(self, text: str) -> bool:
        """Print above the board; False: there is none on a terminal now, so the caller prints."""
        with self._printing:
            if self._terminal is None:
                return False
            # What has ended is off the board before it is told.
            self._draw(time.monotonic())
            self._terminal.show(text)
            return True

    def _keep(self) -> None:
        me = threading.current_thread()
        while not self._ended.wait(DRAW_EVERY):
            with self._printing:
                if self._thread is not me:
                    return
                try:
                    self._draw(time.monotonic())
                except OSError:
                    # The terminal is gone.
                    self._terminal = None
                    return

    def _draw(self, now: float) -> None:
        with self._lock:
            rows = list(self._rows.values())
        out = self.out()
        due = [row for row in rows if now - row.began >= APPEARS]
        if not is_terminal(getattr(out, "rich_proxied_file", out)):
            self._tell(rows, now)
        elif due or self._terminal:
            if self._terminal is None:
                from .terminal import Terminal

                signals.at_the_end(self.close)
                self._terminal = Terminal(out)
            width, height = self._terminal.size()
            frames = FRAMES if self._terminal.is_unicode else PLAIN_FRAMES
            frame = frames[int(now / DRAW_EVERY) % len(frames)]
            looks = [look(row, now) for row in due]
            footer = self.footer() if looks else ""
            self._terminal.draw(lines(looks, footer, width, height, frame))

    def _leave_terminal(self) -> None:
        if self._terminal is not None:
            with suppress(OSError):
                self._terminal.close()
            self._terminal = None

    def _tell(self, rows: Sequence[Row], now: float) -> None:
        for row in rows:
            pause = min(FIRST_LINE * 2**row.times_told, LONGEST_PAUSE)
            if now - (row.told or row.began) >= pause:
                row.told, row.times_told = now, row.times_told + 1
                self.tell(look(row, now).told())


def _report(progress: Progress, on_progress: OnProgress, ended: threading.Event) -> None:
    while not ended.wait(DRAW_EVERY):
        on_progress(*share(progress.snapshot()))
