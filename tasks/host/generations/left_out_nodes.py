"""Optional custom nodes that are not part of the machine now, each with the reason."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ...spec.layout import Layout
from ..system import files
from ..system.stat_cache import while_unchanged

_receipt = while_unchanged(files.read_receipt)


def unmet(layout: Layout) -> Path:
    """Those whose requirements can't be met."""
    return layout.receipts / "left_out.json"


def node_receipt(layout: Layout, name: str) -> Path:
    """Of a node's source; or why it could not be fetched."""
    return layout.receipts / "nodes" / f"{name}.json"


def not_fetched(layout: Layout, name: str) -> str | None:
    reason = _receipt(layout.read_path(node_receipt(layout, name))).get("left_out")
    return str(reason) if reason else None


def left_out(layout: Layout, names: Iterable[str]) -> dict[str, str]:
    """Those of the named nodes that are left out."""
    away = files.read_receipt(layout.read_path(unmet(layout)))
    found = {name: not_fetched(layout, name) or away.get(name) for name in names}
    return {name: str(reason) for name, reason in found.items() if reason}
