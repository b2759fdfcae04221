"""Whether this is a plan: then steps foresee what they would do, and write into an overlay."""

from __future__ import annotations

from pathlib import Path

overlay: Path | None = None
"""Set by `doit plan` before the machine file is read."""
updates: frozenset[str] | None = None
"""Set by `doit update`: the names to move to the newest, empty for all."""
