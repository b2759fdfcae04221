"""The log: everything that goes to stdout and stderr, the newest entries kept for HTTP."""

from __future__ import annotations

import logging
import sys
from collections import deque
from datetime import datetime
from typing import IO, Any

CAPACITY = 300
"""Entries kept, each what one write() brought."""

entries: deque[tuple[str, str]] = deque(maxlen=CAPACITY)


class Recorder:
    """A text stream that keeps a copy of what passes through it."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        entries.append((datetime.now().isoformat(), text))
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def start(level: str, use_stdout: bool) -> None:
    """Log plain messages to stderr; with use_stdout, those below an error to stdout."""
    sys.stdout = Recorder(sys.stdout)
    sys.stderr = Recorder(sys.stderr)
    root = logging.getLogger()
    root.setLevel(level)
    errors = logging.StreamHandler(sys.stderr)
    root.addHandler(errors)
    if use_stdout:
        errors.setLevel(logging.ERROR)
        rest = logging.StreamHandler(sys.stdout)
        rest.addFilter(lambda record: record.levelno < logging.ERROR)
        root.addHandler(rest)


def text() -> str:
    """All entries that are kept, as one string."""
    return "".join(f"{time} - {message}" for time, message in entries)
