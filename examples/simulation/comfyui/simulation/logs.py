"""The log: everything written to stdout and stderr, with the newest entries available over HTTP."""

from __future__ import annotations

import logging
import sys
from collections import deque
from datetime import datetime
from typing import IO, Any

from simulation.flags import SINCE_2026, args

CAPACITY = 300
"""Entries kept, each what one write() brought."""

DETAIL = 15
"""A level between DEBUG and INFO."""

_RESET = "\033[0m"
_COLOURS = {
    "DEBUG": "\033[36m",
    "DETAIL": "\033[34m",
    "INFO": "\033[32m",
    "WARNING": "\033[33m",
    "ERROR": "\033[31m",
    "CRITICAL": "\033[35m",
}

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


class TaggedFormatter(logging.Formatter):
    """A coloured tag with the level before each record, terminal or not: on its first line only."""

    def format(self, record: logging.LogRecord) -> str:
        bold = "\033[1m" if record.levelno >= logging.WARNING else ""
        tag = f"{bold}{_COLOURS.get(record.levelname, '')}[{record.levelname}]{_RESET} "
        message = super().format(record)
        green = getattr(record, "color", None) == "green"
        return f"{tag}{_COLOURS['INFO']}{message}{_RESET}" if green else tag + message


def start() -> None:
    """Log to stderr, with --log-stdout below an error to stdout; with tags from 2026 on."""
    sys.stdout = Recorder(sys.stdout)
    sys.stderr = Recorder(sys.stderr)
    logging.addLevelName(DETAIL, "DETAIL")
    given = args.verbose if SINCE_2026 else [(args.verbose, None)]
    here = [logging.getLevelName(level) for level, file in given if file is None]
    level: int = min(here, default=logging.INFO)
    root = logging.getLogger()
    files = [(logging.getLevelName(name), file) for name, file in given if file is not None]
    root.setLevel(min([level, *(file_level for file_level, _ in files)]))
    errors = logging.StreamHandler(sys.stderr)
    handlers: list[logging.Handler] = [errors]
    if args.log_stdout:
        errors.addFilter(lambda record: record.levelno >= logging.ERROR)
        rest = logging.StreamHandler(sys.stdout)
        rest.addFilter(lambda record: record.levelno < logging.ERROR)
        handlers.append(rest)
    for handler in handlers:
        handler.setLevel(level)
        if SINCE_2026:
            handler.setFormatter(TaggedFormatter("%(message)s"))
        root.addHandler(handler)
    for file_level, file in files:
        to_file = logging.FileHandler(file, encoding="utf-8")
        to_file.setLevel(file_level)
        to_file.setFormatter(logging.Formatter("[%(asctime)s] [%(levelname)s] %(message)s"))
        root.addHandler(to_file)


def text() -> str:
    """All entries that are kept, as one string."""
    return "".join(f"{time} - {message}" for time, message in entries)
