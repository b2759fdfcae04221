"""The line of a log to blame for the end of its process."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..system import files
from ..system.redaction import redact

TAIL = 65536
"""Bytes at the end of a log that may hold the reason."""
NEAR = 25
"""Lines that may follow the reason; what is further up did not end the process."""
LONGEST = 300
"""Characters shown of a line."""

INTERRUPTED = "KeyboardInterrupt"
"""Python's, where ComfyUI is still being loaded."""

_TRACEBACK = re.compile(r"^(?P<margin>[ |+]*?)(?:Exception Group )?Traceback \(most recent call ")
_EXCEPTION = re.compile(r"^[A-Za-z_][\w.]*(: .*)?$")
_FATAL = re.compile(
    r": error: |\[Errno 98\]|address already in use|^Port \d+ is already in use"
    r"|^Fatal Python error: |^terminate called after |\bCUDA error\b|NVIDIA driver|No CUDA GPUs"
    r"|not compiled with CUDA|ASSETS_STARTUP_FAILED|^Segmentation fault|^Killed$"
)
"""Lines that alone mark the end. Memory that ran out is none of them: ComfyUI logs that and tries
again with less, in a dozen places; an error that ends it has a traceback."""
_TAG = re.compile(r"^\[(DEBUG|DETAIL|INFO|WARNING|ERROR|CRITICAL)\] ?")
"""What ComfyUI puts before a record since 0.28, on its first line."""
_MILD = frozenset({"DEBUG", "DETAIL", "INFO", "WARNING"})
_PM2 = re.compile(r"PM2\s*\||\[PM2\]")
_NOISE = re.compile(
    r"^$|^Stopped server$|^PM2\s*\||^\[PM2\]|^\^C|resource_tracker|^\s*warnings\.warn\("
    r"|^Exiting\b|^Cleaning up\b|^sys:1: "
)
#: What ComfyUI logs of an error after which it continues.
_GOES_ON_AFTER = re.compile(r"^Cannot import \S.* module for custom nodes")
_GOES_ON_WITH = re.compile(r"^!!! Exception during processing !!!")
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True)
class Blame:
    """A line of a log, without colours and credentials; `line` counts from 1."""

    file: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.text}"


def of(log: Path) -> Blame | None:
    """The line of `log` that says why its process ended; None when it is empty or isn't there."""
    lines, start = _end(log)
    found = find(lines)
    if found is None:
        return None
    number, text = found
    return Blame(log.name, _newlines(log, start) + number + 1, redact(text)[:LONGEST])


def gist(log: Path) -> str:
    """The line to blame without its place, for a sentence that names the log."""
    found = of(log)
    return found.text if found else "no output"


def last_lines(log: Path, number: int) -> list[str]:
    """The last lines that aren't blank, without colours and credentials."""
    said = [line for line in _end(log)[0] if line.strip() and not _PM2.match(line)]
    return [redact(line)[:LONGEST] for line in said[-number:]]


def find(lines: Sequence[str]) -> tuple[int, str] | None:
    """The line to blame and its index: the last traceback's exception or the last fatal message,
    whichever is later, when it is near the end; else the last line that isn't noise.

    A record that ComfyUI itself logs as no more than a warning is no fatal message.
    """
    tags = [_TAG.match(line) for line in lines]
    mild = {number for number, tag in enumerate(tags) if tag and tag[1] in _MILD}
    lines = [_TAG.sub("", line) for line in lines]
    telling = [number for number, line in enumerate(lines) if not _NOISE.search(line.strip())]
    if not telling:
        return None
    near = telling[-NEAR:][0]
    fatal = (n for n in telling if _FATAL.search(lines[n]) and n not in mild)
    inside = {number for block in _tracebacks(lines) for number in block[:-1]}
    raised = [block[-1] for block in _tracebacks(lines) if not _goes_on(lines, block)]
    handled = {block[-1] for block in _tracebacks(lines)} - set(raised)
    reasons = [*raised, *(number for number in fatal if number not in inside | handled)]
    last = max((number for number in reasons if number >= near), default=telling[-1])
    return last, _bare(lines[last])


def _end(log: Path) -> tuple[list[str], int]:
    """The last lines of a log, without colours, and at which byte they begin."""
    try:
        with files.open_regular(log) as file:
            start = max(0, file.seek(0, 2) - TAIL)
            file.seek(start)
            text = file.read().decode(errors="replace")
    except OSError:
        return [], 0
    # Not splitlines: lines are numbered as in an editor, where a progress bar's \r begins none.
    return [plain(line) for line in text.split("\n")], start


def plain(line: str) -> str:
    """A line of a log as it is shown."""
    shown = _ANSI.sub("", line.removesuffix("\r").rpartition("\r")[2])
    return "".join(character for character in shown if character.isprintable() or character == "\t")


def _tracebacks(lines: Sequence[str]) -> Iterator[list[int]]:
    """The indexes of each traceback's lines; the last one is its exception's."""
    for number, line in enumerate(lines):
        if match := _TRACEBACK.match(line):
            margin = match["margin"].replace("+", "|")
            for further in range(number + 1, len(lines)):
                text = lines[further]
                if not text.startswith(margin):
                    break
                text = text[len(margin) :]
                if _EXCEPTION.match(text):
                    yield list(range(number, further + 1))
                if text and not text.startswith(" "):
                    break


def _goes_on(lines: Sequence[str], block: Sequence[int]) -> bool:
    """Whether ComfyUI caught this exception (a node's import, a job), or was interrupted, which
    explains nothing about its next start."""
    if lines[block[-1]].strip() == INTERRUPTED:
        return True
    before = [line for line in lines[max(0, block[0] - 1) : block[0]] if line.strip()]
    after = [line for line in lines[block[-1] + 1 : block[-1] + 8] if line.strip()]
    return any(map(_GOES_ON_WITH.match, before)) or any(map(_GOES_ON_AFTER.match, after))


def _bare(line: str) -> str:
    """The line without the margin that groups of exceptions are printed with."""
    return re.sub(r"^[ |+]+", "", line).strip() or line.strip()


def _newlines(log: Path, end: int) -> int:
    """How many lines end in the first `end` bytes of a log."""
    total = 0
    with contextlib.suppress(OSError), files.open_regular(log) as file:
        while block := file.read(min(1 << 20, end - file.tell())):
            total += block.count(b"\n")
    return total
