"""How far uv is with an installation, read from its log while it works.

uv names each download above 1 MiB when it begins and when it is there, says nothing of smaller
ones, and links all packages into the environment at the end, within a second (seen with 0.11).
"""

from __future__ import annotations

import contextlib
import re
import threading
from contextlib import AbstractContextManager
from pathlib import Path

from ..system.progress import Told
from ..system.thread_pool import beside
from ..system.units import size

LOOK_EVERY = 0.25
"""Seconds."""
SAYS = re.compile(r"^(?:Downloading (\S+) \(([\d.]+)([KMG]iB)\)| Downloaded (\S+))$", re.M)
UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def following(log: Path, what: str, told: Told) -> AbstractContextManager[None]:
    """Tell how much of the downloads is there until the body ends; `what` is named in it."""
    start = log.stat().st_size if log.exists() else 0
    return beside(_watch, log, start, what, told)


def _watch(log: Path, start: int, what: str, told: Told, ended: threading.Event) -> None:
    told(None, what)
    seen = b""
    while not ended.wait(LOOK_EVERY):
        with contextlib.suppress(OSError), log.open("rb") as file:
            file.seek(start)
            text = file.read()
            if text != seen:
                seen = text
                told(*share(what, text.decode(errors="replace")))


def share(what: str, text: str) -> tuple[float | None, str]:
    """What uv has said until now, in percent of the large downloads' bytes and in words."""
    begun: dict[str, float] = {}
    there: set[str] = set()
    for name, number, unit, done in SAYS.findall(text):
        if name:
            begun[name] = float(number) * UNITS[unit]
        there.add(done)
    if not begun:
        return None, what
    whole = sum(begun.values())
    come = sum(count for name, count in begun.items() if name in there)
    words = f"{len(there & set(begun))} of {len(begun)} large ones, {size(come)} of {size(whole)}"
    return 100 * come / whole if whole else None, f"{what}, {words}"
