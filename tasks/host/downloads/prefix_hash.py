"""The sha256 of a download, computed while it comes."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading

from .partial_file import Part

BLOCK = 1 << 20
FOLLOW = 0.01
"""Seconds to wait for more bytes."""


class PrefixHash:
    """sha256 of a part, computed as its contiguous beginning grows."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self.restart()

    def restart(self) -> None:
        with self._lock:
            self._sha256 = hashlib.sha256()
            self._position = 0

    def start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._follow, daemon=True)
            self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        if self._thread:
            self._thread.join()

    def finish(self) -> str:
        """The digest of the whole content. Raises OSError if it can't be read back."""
        self.stop()
        while self._advance():
            pass
        return self._sha256.hexdigest()

    def _follow(self) -> None:
        # finish() reports read errors.
        with contextlib.suppress(OSError):
            while not self._ended.wait(0 if self._advance() else FOLLOW):
                pass

    def _advance(self) -> bool:
        """Hash one more block; False: there was none."""
        with self._lock:
            count = min(BLOCK, self._part.prefix - self._position)
            block = os.pread(self._part.descriptor, count, self._position) if count > 0 else b""
            self._sha256.update(block)
            self._position += len(block)
        return bool(block)
