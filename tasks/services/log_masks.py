"""Masks secrets in the logs of apps, in place, and keeps these logs to their owner.

PM2 appends to a log, so what it has written can be overwritten meanwhile, by as many asterisks.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ..host.pm2 import app_secrets, log_rotation
from ..host.system import redaction
from ..spec.layout import Layout

BLOCK = 1 << 20
"""Bytes that are read at once."""


class LogMasks:
    """The logs of a workspace, and how far each was read."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._values: frozenset[str] = frozenset()
        self._secrets: list[bytes] = []
        self._read: dict[tuple[int, int], int] = {}

    def step(self) -> None:
        """Mask what was written since the last step; everything, if there are other secrets."""
        values = app_secrets.values(self._layout)
        if values != self._values:
            self._values, self._read = values, {}
            texts = redaction.longest_first(values)
            self._secrets = [text.encode(errors="surrogateescape") for text in texts]
        read = {}
        for path in self._logs():
            with suppress(FileNotFoundError):
                status = path.stat()
                file = status.st_dev, status.st_ino
                if stat.S_IMODE(status.st_mode) & 0o077:
                    path.chmod(0o600)
                start = self._read.get(file, 0)
                if status.st_size != start:
                    self._mask(path, start if start < status.st_size else 0)
                read[file] = status.st_size
        self._read = read

    def _logs(self) -> Iterator[Path]:
        """The logs and, since PM2 writes to one until it has the new one, those just rotated."""
        for path in self._layout.logs.glob("*.log*"):
            name = path.name.removesuffix(".1")
            if log_rotation.APP_LOG.fullmatch(name) and path.is_file() and not path.is_symlink():
                yield path

    def _mask(self, path: Path, start: int) -> None:
        """Mask from byte `start`. A secret may have begun before it, or before any block."""
        if not self._secrets:
            return
        before = max(map(len, self._secrets)) - 1
        with path.open("r+b", buffering=0) as log:
            at = max(0, start - before)
            while block := os.pread(log.fileno(), BLOCK + before, at):
                for secret in self._secrets:
                    found = block.find(secret)
                    while found >= 0:
                        os.pwrite(log.fileno(), b"*" * len(secret), at + found)
                        found = block.find(secret, found + len(secret))
                at += BLOCK
