"""The bytes of a workflow as they are stored: the graph alone, or with what ComfyUI gets beside it.

What goes beside it is the `extra_data` of ComfyUI's POST /prompt, such as the editor's form of the
graph, which ends up in the images.
"""

from __future__ import annotations

import json
from typing import Any

Graph = dict[str, Any]


def pack(graph: Graph, extra: dict[str, Any]) -> bytes:
    """Raises ValueError and RecursionError for what isn't JSON."""
    whole = {"prompt": graph, "extra_data": extra} if extra else graph
    return json.dumps(whole, separators=(",", ":"), allow_nan=False).encode()


def with_extra(stored: bytes, more: dict[str, Any]) -> bytes:
    """The same with more beside it. Raises ValueError."""
    graph, extra = unpack(stored)
    return pack(graph, {**extra, **more})


def unpack(stored: bytes) -> tuple[Graph, dict[str, Any]]:
    """The graph in API format, and `extra_data`. Raises ValueError."""
    whole = json.loads(stored)
    if not isinstance(whole, dict):
        raise ValueError("it is no workflow")
    graph, extra = whole.get("prompt"), whole.get("extra_data")
    # A node can have such a name, but then it has a class.
    alone = any(not isinstance(each, dict) or "class_type" in each for each in (graph, extra))
    if alone or set(whole) != {"prompt", "extra_data"}:
        return whole, {}
    assert isinstance(graph, dict)
    assert isinstance(extra, dict)
    return graph, extra
