"""The logs of apps as one stream, each line with the name of the app before it."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
from pathlib import Path
from typing import BinaryIO

from . import apps
from .log_rotation import APP_LOG

NAMES = re.compile(rf"{APP_LOG.pattern}|{apps.SERVER}\.log")
EVERY = 0.25
"""Seconds between two looks."""
BLOCK = 1 << 20
"""Bytes that are read at once, and that a line may have before it is shown as two."""


class LogStream:
    """Writes what apps add to their logs to a file descriptor, until it is stopped.

    What stood in the logs before isn't repeated. A rotated log is read to its end.
    """

    def __init__(self, folder: Path, to: int | None = None) -> None:
        self._folder = folder
        self._to = sys.stdout.fileno() if to is None else to
        self._open: dict[Path, BinaryIO] = {}
        self._rest: dict[Path, bytes] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._go_on, daemon=True)

    def start(self) -> None:
        for path in self._logs():
            self._opened(path).seek(0, os.SEEK_END)
        self._thread.start()

    def stop(self) -> None:
        """Show what is left; a reader that doesn't read is not waited for."""
        self._stopped.set()
        self._thread.join(1.0)

    def _go_on(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            while not self._stopped.wait(EVERY):
                self._look()
            self._look()

    def _logs(self) -> list[Path]:
        try:
            found = sorted(self._folder.iterdir())
        except OSError:
            return []
        return [path for path in found if NAMES.fullmatch(path.name)]

    def _opened(self, path: Path) -> BinaryIO:
        if path not in self._open:
            self._open[path] = path.open("rb", buffering=0)
        return self._open[path]

    def _look(self) -> None:
        for path in self._logs():
            with contextlib.suppress(FileNotFoundError):
                self._show(path, self._opened(path))
                if not self._is_still(path):
                    # Rotated: PM2 writes to the old one until it has opened the new one.
                    self._show(path, self._open.pop(path))
                    self._show(path, self._opened(path))

    def _is_still(self, path: Path) -> bool:
        opened, there = os.fstat(self._open[path].fileno()), path.stat()
        return opened.st_ino == there.st_ino and there.st_size >= self._open[path].tell()

    def _show(self, path: Path, log: BinaryIO) -> None:
        """Whole lines only; the rest of one waits for its end."""
        name = path.stem.encode()
        while block := log.read(BLOCK):
            *lines, self._rest[path] = (self._rest.get(path, b"") + block).split(b"\n")
            if len(self._rest[path]) >= BLOCK:
                lines.append(self._rest.pop(path))
            shown = b"".join(b"%s | %s\n" % (name, line) for line in lines)
            while shown:
                shown = shown[os.write(self._to, shown) :]
