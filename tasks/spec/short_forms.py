"""Entries of a machine file in short: a custom node that is only an address or a folder, a workflow
that is only a file, and jobs that are only on or off."""

from __future__ import annotations

import re
from typing import Any

_ADDRESS = re.compile(r"[a-z+]+://|[\w.-]+@[\w.-]+:")
_FOLDER = re.compile(r"\.{0,2}/|~/")


def spell_out(data: dict[Any, Any]) -> dict[Any, Any]:
    """The same data with short entries as the mappings that they stand for."""
    nodes, workflows, jobs = (data.get(key) for key in ("custom_nodes", "workflows", "jobs"))
    if isinstance(nodes, list):
        data = data | {"custom_nodes": [*map(_node, nodes)]}
    if isinstance(workflows, list):
        short = [{"path": each} if isinstance(each, str) else each for each in workflows]
        data = data | {"workflows": short}
    if isinstance(jobs, bool):
        data = data | {"jobs": {} if jobs else None}
    return data


def _node(entry: Any) -> Any:
    if isinstance(entry, str):
        if _ADDRESS.match(entry):
            return {"url": entry}
        if _FOLDER.match(entry):
            return {"path": entry}
    return entry
