"""What a workflow needs of an instance: node classes, and models.

Only what ComfyUI gets counts: nodes that are muted or bypassed need nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import node_uses
from .model_names import MODEL_FILE
from .node_uses import NodeUse


@dataclass(frozen=True)
class NeededModel:
    """A model file that a node names."""

    node: str
    kind: str
    """The node's class."""
    input: str
    """Empty: the format doesn't tell."""
    name: str
    """With forward slashes."""


@dataclass(frozen=True)
class Needs:
    """What a workflow needs."""

    classes: Mapping[str, NodeUse] = field(default_factory=dict)
    """Class → the first node of it."""
    unsure: Mapping[str, NodeUse] = field(default_factory=dict)
    """Those that perhaps only the page has, by JavaScript."""
    models: tuple[NeededModel, ...] = ()


def of(workflow: Any) -> Needs:
    """Raises ValueError for what is no workflow."""
    uses = [each for each in node_uses.uses(workflow) if each.sent]
    # A file without any mark was written by hand, or before the page made them.
    has_marks = any(each.described for each in uses)
    classes: dict[str, NodeUse] = {}
    unsure: dict[str, NodeUse] = {}
    for use in uses:
        if use.described or not has_marks:
            classes.setdefault(use.kind, use)
        elif use.linked:
            # Without a link it neither gives nor takes anything: a note, a label, a switch.
            unsure.setdefault(use.kind, use)
    unsure = {kind: use for kind, use in unsure.items() if kind not in classes}
    return Needs(classes, unsure, tuple(dict.fromkeys(_models(uses))))


def _models(uses: Sequence[NodeUse]) -> Iterator[NeededModel]:
    for use in uses:
        for name, text in use.texts:
            if "://" not in text and MODEL_FILE.fullmatch(text.strip()):
                yield NeededModel(use.id, use.kind, name, slashed(text))


def slashed(name: str) -> str:
    """A model's name as it is compared: ComfyUI on Windows writes the other slash."""
    return name.strip().replace("\\", "/")
