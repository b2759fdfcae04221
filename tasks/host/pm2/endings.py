"""Why a process of an app ended: from what we did, else from its exit status.

A line of its log is evidence beside that, and only one from this very process's part of the log.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ...spec.layout import Layout
from ..system import out_of_memory, private_folder
from ..system.stat_cache import stamp, while_unchanged
from . import exits, log_evidence, process_starts, stops
from .exits import Exit
from .log_evidence import Blame, Part
from .process_starts import Start

Cause = Literal["stopped", "out of memory", "killed", "exited", "unknown"]
SETTLES = 3.0
"""Seconds within which PM2 has logged how a process ended, and its last output."""
FLUSH = 0.3
"""Seconds without output after which PM2 has written the last of a process."""
SAY_NOTHING: Collection[Cause] = ("stopped", "out of memory")
"""Of these no line of the log is evidence."""


@dataclass(frozen=True)
class Ending:
    """`message` says what happened, a predicate of "it"."""

    cause: Cause
    message: str
    evidence: Blame | None = None

    def __str__(self) -> str:
        return f"{self.message}: {self.evidence}" if self.evidence else self.message

    @property
    def gist(self) -> str:
        """For a message that names the log anyway."""
        return f"{self.evidence.text} ({self.message})" if self.evidence else self.message


_exits = while_unchanged(lambda log: exits.read(log.parent))
_cached: dict[tuple[Path, str], tuple[object, Ending]] = {}
MOST = 1024
"""Processes whose end is cached."""


def last(layout: Layout, name: str, running: int | None = None) -> Ending | None:
    """How the last process that ended did; None: none is known. `running`: the pid of the app.

    Never raises.
    """
    starts = process_starts.read(layout, name)
    ended = [place for place, start in enumerate(starts) if start.pid != running]
    if ended or starts:
        return _at(layout, name, starts, ended[-1]) if ended else None
    # An app of an older version, or one that never became a process.
    found = _at(layout, name, [], 0)
    return found if found.cause != "unknown" or found.evidence else None


def of(layout: Layout, name: str, pid: int) -> Ending:
    """How this process, which ended, did. Never raises."""
    starts = process_starts.read(layout, name)
    places = [place for place, start in enumerate(starts) if start.pid == pid]
    return _at(layout, name, starts, places[-1]) if places else _at(layout, name, [], 0)


def settled(layout: Layout, name: str, pid: int | None) -> Ending | None:
    """How a process that has just ended did, once PM2 has logged that and its last output; None:
    nothing is known. Without a pid, the last one. Waits at most SETTLES seconds.
    """
    deadline, log = time.monotonic() + SETTLES, layout.log(name)
    before = stamp(log)
    while True:
        time.sleep(FLUSH)
        found = of(layout, name, pid) if pid else last(layout, name)
        written, before = stamp(log) != before, stamp(log)
        # Without evidence its output may still be on the way.
        is_whole = found is not None and (found.evidence is not None or found.cause in SAY_NOTHING)
        if (is_whole and not written) or time.monotonic() > deadline:
            return found


def _at(layout: Layout, name: str, starts: Sequence[Start], place: int) -> Ending:
    """The end of the process at this place, or of the app if no start is known.

    Cached while nothing changed: the health server asks every second, and lines are counted in
    the whole log. Once the next process has begun, the log of this one doesn't change.
    """
    start, following = (*starts[place : place + 2], None, None)[:2]
    log, known_exits = layout.log(name), exits.log_of(private_folder.folder(layout.workspace))
    seen = [following, stamp(layout.stopped), stamp(known_exits), None if following else stamp(log)]
    key = (log, start.process if start else "")
    known = _cached.get(key)
    if known is None or known[0] != seen:
        # PM2 logs the same starts, in the same order.
        later, ended = max(1, len(starts) - place), _exits(known_exits).get(name, [])
        status = ended[-later] if len(ended) >= later else None
        if len(_cached) >= MOST:
            _cached.clear()
        known = _cached[key] = (seen, _of(layout, name, start, following, status))
    return known[1]


def _of(
    layout: Layout, name: str, start: Start | None, following: Start | None, status: Exit | None
) -> Ending:
    known = stops.known(layout.stopped)
    stop = known.last.get(name)
    if stop and (stop.process == start.process if start else name in known.names):
        return Ending("stopped", str(stop))
    part = (
        Part(start.inode, start.offset, following.offset if following else None) if start else None
    )
    log = layout.log(name)
    if status is None:
        return Ending("unknown", "it ended", log_evidence.of(log, part, says_why=True))
    if status.signal is None:
        # Python's code after an exception, and after sys.exit() with a text, which it prints.
        says_why = status.code == 1
        evidence = log_evidence.of(log, part, says_why=says_why) if status.code else None
        return Ending("exited", f"it exited with code {status.code}", evidence)
    number = getattr(signal.Signals, status.signal, 0)
    message = f"it was killed by signal {int(number)} ({status.signal})"
    if number == signal.SIGKILL:
        return _killed(start, message)
    return Ending("killed", message, log_evidence.of(log, part))


def _killed(start: Start | None, message: str) -> Ending:
    """A process can't write anything about signal 9, so no line is evidence."""
    if start and out_of_memory.names(start.pid, start.at):
        why = "memory ran out: the kernel's OOM killer killed it (signal 9)"
        return Ending("out of memory", why)
    count = out_of_memory.count(start.memory_events) if start and start.memory_events else None
    if start and count is not None and count > start.killed:
        why = "memory ran out: the kernel's OOM killer was at work in its cgroup"
        return Ending("out of memory", f"{message}; {why}")
    return Ending("killed", message)
