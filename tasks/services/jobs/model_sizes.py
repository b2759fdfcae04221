"""How large the models of an instance are, where they lie in this machine's folder of models."""

from __future__ import annotations

from collections.abc import Collection

from ...spec.layout import Layout


def of(layout: Layout, models: Collection[str]) -> dict[str, int]:
    """Model, as folder/name → its bytes; those that lie elsewhere are left out."""
    sizes: dict[str, int] = {}
    for model in models:
        try:
            sizes[model] = (layout.models / model).stat().st_size
        except (OSError, ValueError):
            continue
    return sizes
