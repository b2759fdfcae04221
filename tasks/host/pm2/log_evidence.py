"""The line of a log that explains why its process ended."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..system import files
from ..system.plain_text import without_colours
from ..system.redaction import redact

TAIL = 65536
"""Bytes at the end of a log that are searched."""
NEAR = 25
"""Lines that may follow the reason; earlier lines did not end the process."""
LONGEST = 300
"""Characters shown of a line."""

INTERRUPTED = "KeyboardInterrupt"
"""Python's message when ComfyUI is interrupted while it loads."""

_TRACEBACK = re.compile(r"^(?P<margin>[ |+]*?)(?:Exception Group )?Traceback \(most recent call ")
_EXCEPTION = re.compile(r"^[A-Za-z_][\w.]*(: .*)?$")
_FATAL = re.compile(
    r": error: |\[Errno 98\]|address already in use|^Port \d+ is already in use"
    r"|^Fatal Python error: |^terminate called after |\bCUDA error\b|NVIDIA driver|No CUDA GPUs"
    r"|not compiled with CUDA|ASSETS_STARTUP_FAILED|^Segmentation fault|^Killed$"
)
"""Single lines that end a process. Out-of-memory messages are not among them: ComfyUI logs them and
retries with less memory in a dozen places; one that ends it has a traceback."""
_TIME = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ")
"""What `services/inside/log_times.py` writes before a log record."""
_TAG = re.compile(r"^\[(DEBUG|DETAIL|INFO|WARNING|ERROR|CRITICAL)\] ?")
"""The prefix of a log record since ComfyUI 0.28, on its first line."""
_MILD = frozenset({"DEBUG", "DETAIL", "INFO", "WARNING"})
_PM2 = re.compile(r"PM2\s*\||\[PM2\]")
_NOISE = re.compile(
    r"^$|^Stopped server$|^PM2\s*\||^\[PM2\]|^\^C|resource_tracker|^\s*warnings\.warn\("
    r"|^Exiting\b|^Cleaning up\b|^sys:1: "
)
_WELL = re.compile(
    r"^(Starting server|To see the GUI go to:|got prompt|Prompt executed|Total VRAM|Device:"
    r"|pytorch version|Python version|ComfyUI|Set vram state|Using .* attention|Context impl"
    r"|Will assume|No target revision|\[Prompt Server\]|\s+[\d.]+ seconds|Import times)"
)
"""What ComfyUI writes while all is well."""
#: What ComfyUI logs after or before the traceback of an exception that it catches.
_CAUGHT_AFTER = re.compile(r"^Cannot import \S.* module for custom nodes")
_CAUGHT_BEFORE = re.compile(r"^!!! Exception during processing !!!")


@dataclass(frozen=True)
class Blame:
    """A line of a log, without colours and credentials; `line` counts from 1."""

    file: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.text}"


@dataclass(frozen=True)
class Part:
    """A process's part of a log, in bytes; no end: up to the log's end."""

    inode: int
    """Of the log as the process began: a log that was rotated since is its own from the start."""
    begin: int
    end: int | None = None


def of(log: Path, part: Part | None = None, *, says_why: bool = False) -> Blame | None:
    """The line in a process's part of a log that explains its end; None: none does.

    `says_why`: it ended as one does that says why, so its last line counts where no error is seen.
    """
    lines, start = _end(log, part)
    evidence = find(lines, says_why=says_why)
    if evidence is None:
        return None
    number, text = evidence
    return Blame(log.name, _newlines(log, start) + number + 1, redact(text)[:LONGEST])


def last_lines(log: Path, number: int) -> list[str]:
    """The last lines that aren't blank, without colours and credentials."""
    lines = [line for line in _end(log)[0] if line.strip() and not _PM2.match(line)]
    return [redact(line)[:LONGEST] for line in lines[-number:]]


def find(lines: Sequence[str], *, says_why: bool) -> tuple[int, str] | None:
    """The line that explains the end, and its index: the exception of the last traceback, or the
    last fatal message, whichever is later, if it is near the end; else, with `says_why`, the last
    line that is neither noise nor what ComfyUI writes while all is well.

    Records that ComfyUI logs as a warning or less are not fatal.
    """
    lines = [_TIME.sub("", line) for line in lines]
    tags = [_TAG.match(line) for line in lines]
    mild = {number for number, tag in enumerate(tags) if tag and tag[1] in _MILD}
    lines = [_TAG.sub("", line) for line in lines]
    telling = [number for number, line in enumerate(lines) if not _NOISE.search(line.strip())]
    if not telling:
        return None
    near = telling[-NEAR:][0]
    fatal = (n for n in telling if _FATAL.search(lines[n]) and n not in mild)
    tracebacks = list(_tracebacks(lines))
    raised = [block[-1] for block in tracebacks if not _is_harmless(lines, block)]
    in_tracebacks = {number for block in tracebacks for number in block} - set(raised)
    reasons = [*raised, *(number for number in fatal if number not in in_tracebacks)]
    last = max((number for number in reasons if number >= near), default=None)
    if last is None and says_why and telling[-1] not in mild:
        last = None if _WELL.search(lines[telling[-1]]) else telling[-1]
    return None if last is None else (last, _bare(lines[last]))


def _end(log: Path, part: Part | None = None) -> tuple[list[str], int]:
    """The last lines of a log or of a part, without colours, and the byte offset of the first."""
    try:
        with files.open_regular(log) as file:
            size = file.seek(0, 2)
            is_same = part is not None and part.inode == os.fstat(file.fileno()).st_ino
            begin = part.begin if part and is_same else 0
            end = min(size, part.end) if part and part.end is not None else size
            start = max(begin, end - TAIL)
            file.seek(start)
            text = file.read(max(0, end - start)).decode(errors="replace")
    except OSError:
        return [], 0
    # Not splitlines: lines are numbered as in an editor, where \r doesn't begin a line.
    return [plain(line) for line in text.split("\n")], start


def plain(line: str) -> str:
    """A line of a log as a terminal shows it, without colours."""
    shown = without_colours(line.removesuffix("\r").rpartition("\r")[2])
    return "".join(character for character in shown if character.isprintable() or character == "\t")


def _tracebacks(lines: Sequence[str]) -> Iterator[list[int]]:
    """The line indexes of each traceback; the last one is that of the exception."""
    for number, line in enumerate(lines):
        if match := _TRACEBACK.match(line):
            margin = match["margin"].replace("+", "|")
            for last in range(number + 1, len(lines)):
                text = lines[last]
                if not text.startswith(margin):
                    break
                text = text[len(margin) :]
                if _EXCEPTION.match(text):
                    yield list(range(number, last + 1))
                if text and not text.startswith(" "):
                    break


def _is_harmless(lines: Sequence[str], block: Sequence[int]) -> bool:
    """Whether ComfyUI caught this exception (of a node's import or a job) or was interrupted."""
    if lines[block[-1]].strip() == INTERRUPTED:
        return True
    before = [line for line in lines[max(0, block[0] - 1) : block[0]] if line.strip()]
    after = [line for line in lines[block[-1] + 1 : block[-1] + 8] if line.strip()]
    return any(map(_CAUGHT_BEFORE.match, before)) or any(map(_CAUGHT_AFTER.match, after))


def _bare(line: str) -> str:
    """The line without the margin of an exception group."""
    return re.sub(r"^[ |+]+", "", line).strip() or line.strip()


def _newlines(log: Path, end: int) -> int:
    """The number of newlines in the first `end` bytes of a log."""
    total = 0
    with contextlib.suppress(OSError), files.open_regular(log) as file:
        while block := file.read(min(1 << 20, end - file.tell())):
            total += block.count(b"\n")
    return total
