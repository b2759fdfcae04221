"""The progress of an installation, from uv's log while it works.

uv logs the start and end of each download above 1 MiB, nothing for smaller ones, and copies all
packages into the environment at the end, within a second (seen with 0.11).
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
from contextlib import AbstractContextManager
from pathlib import Path

from ..system.progress import OnProgress
from ..system.thread_pool import beside
from ..system.units import size

LOOK_EVERY = 0.25
"""Seconds."""
LINE = re.compile(r"^(?:Downloading (\S+) \(([\d.]+)([KMG]iB)\)| Downloaded (\S+))$", re.M)
UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def following(log: Path, what: str, on_progress: OnProgress) -> AbstractContextManager[None]:
    """Report the progress of the downloads until the body ends; `what` is part of the text."""
    start = log.stat().st_size if log.exists() else 0
    return beside(_watch, log, start, what, on_progress)


def _watch(
    log: Path, start: int, what: str, on_progress: OnProgress, ended: threading.Event
) -> None:
    on_progress(None, what)
    previous, begin = b"", time.monotonic()
    while not ended.wait(LOOK_EVERY):
        with contextlib.suppress(OSError), log.open("rb") as file:
            file.seek(start)
            text = file.read()
            if text != previous:
                previous = text
                seconds = time.monotonic() - begin
                on_progress(*share(what, text.decode(errors="replace"), seconds))


def share(what: str, text: str, seconds: float = 0.0) -> tuple[float | None, str]:
    """The percentage of the large downloads' bytes, and a text, from uv's log so far, which it
    wrote in `seconds`."""
    started: dict[str, float] = {}
    finished: set[str] = set()
    for name, number, unit, done in LINE.findall(text):
        if name:
            started[name] = float(number) * UNITS[unit]
        finished.add(done)
    if not started:
        return None, what
    total = sum(started.values())
    done_bytes = sum(count for name, count in started.items() if name in finished)
    counts = f"{len(finished & set(started))} of {len(started)} large ones"
    rate = f", {size(done_bytes / seconds)}/s" if done_bytes and seconds >= 1 else ""
    text = f"{size(done_bytes)} of {size(total)}{rate}, {what}, {counts}"
    return 100 * done_bytes / total if total else None, text
