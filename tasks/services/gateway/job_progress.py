"""How far a job is, from what ComfyUI says about it while it runs."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any

JPEG, PNG = "image/jpeg", "image/png"
SHOWN = (JPEG, PNG, "image/webp")
LARGEST = 512 << 10
"""Bytes of a preview that is kept."""
IMAGE, IMAGE_WITH_NODE = 1, 4
"""Kinds of binary messages (protocol.py of ComfyUI 0.3)."""


@dataclass
class JobProgress:
    """The sum of all messages so far."""

    nodes: int
    """How many the workflow has."""
    done: set[str] = field(default_factory=set)
    node: str = ""
    """The one that runs; empty: none."""
    step: float = 0.0
    steps: float = 0.0
    """Of this node; 0: not known."""
    outputs: dict[str, Any] = field(default_factory=dict)
    """Node → what it has made, as in a record."""
    preview: Preview | None = None
    """The last picture that it showed."""
    shown_at: float = 0.0
    """When that was, in seconds since the epoch."""

    def see(self, message: bytes) -> None:
        """Take in a binary message; what is no picture, or a large one, changes nothing."""
        found = preview_of(message) if len(message) <= LARGEST else None
        if found and found.content_type in SHOWN:
            self.preview, self.shown_at = found, time.time()

    def hear(self, message: dict[str, Any]) -> None:
        """Take in one message; what isn't about progress changes nothing."""
        kind, data = message.get("type"), message.get("data")
        if not isinstance(data, dict):
            return
        if kind == "execution_cached" and isinstance(data.get("nodes"), list):
            self.done.update(map(str, data["nodes"]))
        elif kind == "executing":
            self._move(str(data["node"]) if data.get("node") is not None else "")
        elif kind == "executed" and data.get("node") is not None:
            self.done.add(str(data["node"]))
            if isinstance(data.get("output"), dict):
                self.outputs[str(data["node"])] = data["output"]
        elif kind == "progress":
            if data.get("node") is not None:
                self._move(str(data["node"]))
            self._count(data)
        elif kind == "progress_state" and isinstance(data.get("nodes"), dict):
            for name, state in data["nodes"].items():
                self._take(str(name), state)

    @property
    def share(self) -> float:
        """From 0 to 1."""
        total = max(self.nodes, len(self.done) + bool(self.node), 1)
        part = min(self.step / self.steps, 1.0) if self.steps > 0 and self.node else 0.0
        return min(1.0, max(0.0, (len(self.done) + part) / total))

    def snapshot(self) -> dict[str, Any]:
        """As clients of the Comfy API v2 read it."""
        counts = bool(self.node and self.steps > 0)
        return {
            "value": self.share,
            "nodes_done": len(self.done),
            "nodes_total": max(self.nodes, len(self.done)),
            "current_node": self.node or None,
            "step": int(self.step) if counts else None,
            "steps": int(self.steps) if counts else None,
        }

    def _move(self, node: str) -> None:
        if node == self.node:
            return
        if self.node:
            self.done.add(self.node)
        self.done.discard(node)
        self.node, self.step, self.steps = node, 0.0, 0.0

    def _count(self, data: dict[str, Any]) -> None:
        value, most = data.get("value"), data.get("max")
        if isinstance(value, int | float) and isinstance(most, int | float):
            self.step, self.steps = float(value), float(most)

    def _take(self, name: str, state: Any) -> None:
        if not isinstance(state, dict):
            return
        if state.get("state") == "finished":
            self.done.add(name)
            if name == self.node:
                self.node, self.step, self.steps = "", 0.0, 0.0
        elif state.get("state") == "running":
            self.done.discard(name)
            self.node = name
            self._count(state)


@dataclass(frozen=True)
class Preview:
    """A picture of what a node is making."""

    node: str
    content_type: str
    image: bytes


def preview_of(message: bytes) -> Preview | None:
    """The picture in a binary message of ComfyUI; None: there is none."""
    if len(message) < 8:
        return None
    kind, second = int.from_bytes(message[:4], "big"), int.from_bytes(message[4:8], "big")
    if kind == IMAGE:
        return Preview("", PNG if second == 2 else JPEG, message[8:])
    if kind != IMAGE_WITH_NODE or len(message) < 8 + second:
        return None
    try:
        about = json.loads(message[8 : 8 + second])
    except ValueError:
        return None
    if not isinstance(about, dict):
        return None
    image_type, node = str(about.get("image_type", JPEG)), str(about.get("node_id", ""))
    return Preview(node, image_type, message[8 + second :])
