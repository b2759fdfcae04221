"""The logs of all apps as one stream; each line begins with the app's name."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from pathlib import Path
from typing import BinaryIO

from ...spec.layout import Layout
from ..system.redaction import mask
from . import app_secrets
from .log_rotation import APP_LOG

EVERY = 0.25
"""Seconds between two reads."""
BLOCK = 1 << 20
"""Bytes that are read at once; longer lines are split."""


class LogStream:
    """Copies new lines of the apps' logs to a file descriptor until it is stopped.

    Reads rotated logs to their end. Secrets are masked.
    """

    def __init__(self, layout: Layout, to: int | None = None) -> None:
        self._layout = layout
        self._to = sys.stdout.fileno() if to is None else to
        self._open: dict[Path, BinaryIO] = {}
        self._rest: dict[Path, bytes] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        for path in self._logs():
            self._opened(path).seek(0, os.SEEK_END)
        self._thread.start()

    def stop(self) -> None:
        """Copy the rest; waits at most a second for the reader."""
        self._stopped.set()
        self._thread.join(1.0)

    def _run(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            while not self._stopped.wait(EVERY):
                self._copy_new_lines()
            self._copy_new_lines()

    def _logs(self) -> list[Path]:
        try:
            paths = sorted(self._layout.logs.iterdir())
        except OSError:
            return []
        return [path for path in paths if APP_LOG.fullmatch(path.name)]

    def _opened(self, path: Path) -> BinaryIO:
        if path not in self._open:
            self._open[path] = path.open("rb", buffering=0)
        return self._open[path]

    def _copy_new_lines(self) -> None:
        for path in self._logs():
            with contextlib.suppress(FileNotFoundError):
                self._copy(path, self._opened(path))
                if self._was_rotated(path):
                    # PM2 writes to the old file until it has opened the new one.
                    self._copy(path, self._open.pop(path))
                    self._copy(path, self._opened(path))

    def _was_rotated(self, path: Path) -> bool:
        opened, current = os.fstat(self._open[path].fileno()), path.stat()
        return opened.st_ino != current.st_ino or current.st_size < self._open[path].tell()

    def _copy(self, path: Path, log: BinaryIO) -> None:
        """Copy whole lines; keeps the beginning of an unfinished one."""
        name = path.stem.encode()
        while block := log.read(BLOCK):
            *lines, self._rest[path] = (self._rest.get(path, b"") + block).split(b"\n")
            if len(self._rest[path]) >= BLOCK:
                lines.append(self._rest.pop(path))
            shown = self._masked(b"".join(b"%s | %s\n" % (name, line) for line in lines))
            while shown:
                shown = shown[os.write(self._to, shown) :]

    def _masked(self, content: bytes) -> bytes:
        secrets = app_secrets.values(self._layout)
        return mask(content.decode(errors="surrogateescape"), secrets).encode(
            errors="surrogateescape"
        )
