"""Standard output and error of a doit call: closed, on a full disk, or without a reader."""

from __future__ import annotations

import errno
import io
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import Any, TextIO

from doit.cmdparse import CmdParseError

from ..host.system.failure import Failure
from . import command_line, signals
from .exit_codes import ExitCode

FORMAT = 1
"""Of every JSON document. It becomes another number when a key goes or changes its meaning."""


class GuardedCommand:
    """A mixin for doit's commands, which end with one line if their output can't be written, or
    if an option is wrong."""

    name: str
    has_json = False
    """Whether it has the option `--json`."""
    document: Mapping[str, Any] | None = None
    """What it prints with `--json`: one JSON document, and nothing else on standard output."""
    cmdparser: Any

    def parse_execute(self, arguments: list[str]) -> Any:
        with guarded(self.name):
            self.outstream = sys.stdout
            if self.has_json and any(map(_is_json, arguments)):
                # First: doit takes options before names only.
                names = [word for word in arguments if not _is_json(word)]
                return self._print_document(["--json", *names])
            return self._parse_execute(arguments)

    def _parse_execute(self, arguments: list[str]) -> Any:
        try:
            with signals.ending():
                words = command_line.options_first(arguments, self.cmdparser)
                return super().parse_execute(words)  # type: ignore[misc]
        except CmdParseError as error:
            names = [option.long for option in self.cmdparser.options if option.long]
            raise command_line.describe(error, names) from None

    def failed(self, failure: Failure, code: int, prefix: str = "") -> int:
        """Say why the command failed; return the exit code."""
        print(f"{prefix}{failure.with_log()}", file=sys.stderr)
        self.document = _error(str(failure), code, failure.log)
        return code

    def _print_document(self, arguments: list[str]) -> Any:
        out = sys.stdout
        document: Mapping[str, Any] = _error(f"{self.name} was stopped", ExitCode.FAILED)
        try:
            with redirect_stdout(sys.stderr):
                code = self._parse_execute(arguments)
            document = self.document or _error(f"{self.name} has no result", int(code or 0))
        except SystemExit as ending:
            document = _error(f"{self.name} was stopped", _code(ending))
            raise
        except Exception as error:
            # doit prints these on standard error, and exits with 3.
            document = _error(str(error).strip(), ExitCode.INVALID)
            raise
        finally:
            print(json.dumps(document), file=out)
        return code


def _is_json(word: str) -> bool:
    """Whether a word is `--json`, which may be cut short, as any option."""
    return len(word) > 2 and "--json".startswith(word)


def _code(ending: SystemExit) -> int:
    return ending.code if isinstance(ending.code, int) else ExitCode.FAILED


def _error(message: str, code: int, log: object = None) -> dict[str, Any]:
    described = {"message": message, "code": int(code), "log": str(log) if log else None}
    return {"format": FORMAT, "error": described}


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
            raise SystemExit(ExitCode.READER_GONE) from None
        print(f"{command}: standard output can't be written: {error.strerror}", file=sys.stderr)
        raise SystemExit(ExitCode.FAILED) from None
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
