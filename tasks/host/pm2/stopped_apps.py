"""Apps that were stopped on purpose, as noted when they were stopped: a log can't show that."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ...spec.layout import Layout
from ..system import files
from ..system.stat_cache import while_unchanged


def note(layout: Layout, names: Iterable[str]) -> None:
    """These were stopped."""
    _write(layout, read(layout.stopped).union(names))


def forget(layout: Layout, names: Iterable[str]) -> None:
    """These were started."""
    _write(layout, read(layout.stopped).difference(names))


def read(file: Path) -> frozenset[str]:
    found = files.read_receipt(file, names=list).get("names", [])
    return frozenset(name for name in found if isinstance(name, str))


known = while_unchanged(read)
"""`read`, for those who look every second."""


def _write(layout: Layout, names: frozenset[str]) -> None:
    # A workspace that was removed must not come back in part.
    if layout.state.is_dir() and names != read(layout.stopped):
        files.write_receipt(layout.stopped, {"names": sorted(names)})
