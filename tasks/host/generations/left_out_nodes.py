"""Optional custom nodes that are left out of the machine, and why."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ...spec.layout import Layout
from ..system import files
from ..system.stat_cache import while_unchanged

_receipt = while_unchanged(files.read_receipt)


def unmet(layout: Layout) -> Path:
    """The receipt of nodes whose requirements can't be met."""
    return layout.receipts / "left_out.json"


def node_receipt(layout: Layout, name: str) -> Path:
    """The receipt of a node's source, or of why it could not be fetched."""
    return layout.receipts / "nodes" / f"{name}.json"


def not_fetched(layout: Layout, name: str) -> str | None:
    """Why a node could not be fetched; None if it was."""
    reason = _receipt(layout.read_path(node_receipt(layout, name))).get("left_out")
    return str(reason) if reason else None


def left_out(layout: Layout, names: Iterable[str]) -> dict[str, str]:
    """Which of these nodes are left out, and why."""
    recorded = files.read_receipt(layout.read_path(unmet(layout)))
    reasons = {name: not_fetched(layout, name) or recorded.get(name) for name in names}
    return {name: str(reason) for name, reason in reasons.items() if reason}
