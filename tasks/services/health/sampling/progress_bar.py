"""The progress bar that ComfyUI's samplers draw in its log (tqdm's)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ....host.system import files

TAIL = 4096
"""Bytes at the end of a log that may hold the bar."""
_BAR = re.compile(r"(\d{1,3})%\|[^|\r\n]*\| *([\d.]+[kMG]?)/([\d.]+[kMG]?)")


@dataclass(frozen=True)
class Bar:
    """A progress bar: percent, and the step as `7/20`."""

    percent: float
    step: str


def last(log: Path) -> Bar | None:
    """The bar at the end of a log; None when there is none, or it is full."""
    try:
        with files.open_regular(log) as file:
            file.seek(max(0, file.seek(0, 2) - TAIL))
            text = file.read().decode(errors="replace")
    except OSError:
        return None
    # A bar redraws itself after a \r; a \n ends it, and with `leave=False` spaces overwrite it.
    drawn = text.rpartition("\n")[2].removesuffix("\r").rpartition("\r")[2]
    every = _BAR.findall(drawn)
    if not every:
        return None
    percent, done, total = every[-1]
    return None if done == total else Bar(float(percent), f"{done}/{total}")
