"""A record of the apps that were stopped on purpose, which no log shows."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ...spec.layout import Layout
from ..system import files
from ..system.stat_cache import while_unchanged


def note(layout: Layout, names: Iterable[str]) -> None:
    """Add stopped apps."""
    _write(layout, read(layout.stopped).union(names))


def forget(layout: Layout, names: Iterable[str]) -> None:
    """Remove started apps."""
    _write(layout, read(layout.stopped).difference(names))


def read(file: Path) -> frozenset[str]:
    """The names in the record; empty without one."""
    names = files.read_receipt(file, names=list).get("names", [])
    return frozenset(name for name in names if isinstance(name, str))


known = while_unchanged(read)
"""`read`, cached for callers that need it every second."""


def _write(layout: Layout, names: frozenset[str]) -> None:
    # Don't recreate a removed workspace.
    if layout.state.is_dir() and names != read(layout.stopped):
        files.write_receipt(layout.stopped, {"names": sorted(names)})
