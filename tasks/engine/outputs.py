"""Standard output and error of a doit call: closed, on a full disk, or without a reader."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO


class GuardedCommand:
    """A mixin for doit's commands, which end with one line if their output can't be written."""

    name: str

    def parse_execute(self, arguments: list[str]) -> Any:
        with guarded(self.name):
            self.outstream = sys.stdout
            return super().parse_execute(arguments)  # type: ignore[misc]


class OutputError(OSError):
    """Standard output can't be written."""


@contextmanager
def guarded(command: str) -> Iterator[None]:
    """Open what is closed; raise SystemExit once standard output can't be written.

    Its code is 141, as the shell's for SIGPIPE, if the reader is gone, as with `| head`; else 1.
    """
    _open_what_is_closed()
    original: TextIO = sys.stdout
    if original is sys.__stdout__:
        sys.stdout = _checked(original)
    try:
        yield
        sys.stdout.flush()
    except OutputError as error:
        discard(sys.stdout)
        if error.errno == errno.EPIPE:
            raise SystemExit(128 + signal.SIGPIPE) from None
        print(f"{command}: standard output can't be written: {error.strerror}", file=sys.stderr)
        raise SystemExit(1) from None
    finally:
        sys.stdout = original


def discard(output: TextIO) -> None:
    """Write no more to this output."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, output.fileno())
    os.close(null)


def _open_what_is_closed() -> None:
    """Else the next file that is opened is standard output, for us and for our children."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))


class _File(io.FileIO):
    def write(self, content: Any) -> int:
        try:
            return super().write(content)
        except OSError as error:
            raise OutputError(error.errno, error.strerror) from None


def _checked(output: TextIO) -> TextIO:
    """The same output, with an error of its own."""
    output.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_File(output.fileno(), "w", closefd=False)),
        encoding=output.encoding,
        errors=output.errors,
        line_buffering=output.isatty(),
    )
