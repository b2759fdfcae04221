"""The node classes that an instance must have: those that its nodes gave in the build."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from . import load_result


def expected(generation: Path) -> dict[str, tuple[str, ...]]:
    """Custom node → its classes; a node of which nothing is known, or that has none, isn't in it.

    Which nodes an instance leaves out, by choice or because one can't be imported there, is for
    the caller to know.
    """
    results = load_result.read(generation)
    return {name: result.classes for name, result in results.items() if result.classes}


def missing(
    expected: Mapping[str, Sequence[str]], classes: Collection[str]
) -> dict[str, list[str]]:
    """Custom node → those of its classes that `GET /object_info` (its keys) doesn't have.

    One that another node brings counts: which of two comes last is a matter of the disk's order.
    """
    found = {
        node: [name for name in names if name not in classes] for node, names in expected.items()
    }
    return {node: names for node, names in found.items() if names}
