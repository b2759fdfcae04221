"""A terminal in memory: a program on a real pty, and what a person would see of it.

with terminal([DOIT, "build"], 80, 24) as seen:
    seen.until(lambda: "✓ source" in seen.text, 60, "its first steps")
    seen.keys("\\x03")
    seen.ends(10)
"""

from __future__ import annotations

import codecs
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pyte

from tests.contract.client import until

HIDES, SHOWS = b"\x1b[?25l", b"\x1b[?25h"
HISTORY = 500


@dataclass
class Terminal:
    """A screen that a thread keeps up to date. Reading takes its lock, so no half of a drawing is
    ever seen."""

    process: subprocess.Popen[bytes]
    master: int
    screen: pyte.HistoryScreen
    written: bytearray = field(default_factory=bytearray)
    """All bytes so far."""

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._stream = pyte.Stream(self.screen)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while True:
            try:
                chunk = os.read(self.master, 1 << 16)
                # A drawing comes in several pieces.
                while select.select([self.master], [], [], 0)[0]:
                    chunk += os.read(self.master, 1 << 16)
            except OSError:
                chunk = b""
            if not chunk:
                return
            with self._lock:
                self.written += chunk
                self._stream.feed(self._decoder.decode(chunk))

    @property
    def lines(self) -> list[str]:
        """What has scrolled away and what is on the screen, without empty lines."""
        with self._lock:
            above = [
                "".join(line[column].data for column in range(self.screen.columns))
                for line in self.screen.history.top
            ]
            every = [*above, *self.screen.display]
        return [line.rstrip() for line in every if line.strip()]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    @property
    def cursor_is_visible(self) -> bool:
        with self._lock:
            return not self.screen.cursor.hidden

    def has(self, *parts: str) -> str | None:
        """The first line that has all these parts."""
        return next((line for line in self.lines if all(part in line for part in parts)), None)

    def until(self, condition: Callable[[], object], timeout: float, what: str) -> None:
        try:
            until(lambda: condition() or not self._thread.is_alive(), timeout, what)
        except AssertionError as error:
            raise AssertionError(f"{error}; on the screen:\n{self.text}") from None
        assert condition(), f"it ended before {what}; on the screen:\n{self.text}"

    def sees(self, *parts: str, timeout: float = 60) -> str:
        """Wait for a line that has all these parts; return it as it is then."""
        found: list[str] = []

        def look() -> bool:
            found[:] = filter(None, [self.has(*parts)])
            return bool(found)

        self.until(look, timeout, f"a line with {parts}")
        return found[0]

    def keys(self, text: str) -> None:
        os.write(self.master, text.encode())

    def resize(self, columns: int, rows: int = 24) -> None:
        with self._lock:
            self.screen.resize(rows, columns)
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def ends(self, timeout: float = 60) -> int:
        """Wait for the program's end, and for all that it wrote."""
        code = self.process.wait(timeout)
        self._thread.join(timeout)
        return code


@contextmanager
def terminal(
    words: Sequence[str],
    columns: int,
    rows: int = 24,
    *,
    cwd: Path,
    env: Mapping[str, str],
) -> Iterator[Terminal]:
    """A program in a terminal of this size; it ends with the body."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    sizes = ("COLUMNS", "LINES", "NO_COLOR")
    environ = {name: value for name, value in env.items() if name not in sizes}
    process = subprocess.Popen(
        words,
        cwd=cwd,
        env={**environ, "TERM": env.get("TERM_OF_TEST", "xterm-256color")},
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        # Ctrl-C reaches it as in a shell.
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(slave)
    seen = Terminal(process, master, pyte.HistoryScreen(columns, rows, history=HISTORY, ratio=0.5))
    try:
        yield seen
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        seen._thread.join(10)
        os.close(master)
