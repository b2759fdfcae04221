"""The JSON Schema of machine.yaml, for editors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .model import Spec


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of machine.yaml."""
    content = Spec.model_json_schema()
    for part in _mappings(content):
        # Pydantic derives titles from names, so they add nothing.
        if isinstance(part.get("title"), str):
            del part["title"]
        if part.get("default", ...) in (None, ""):
            del part["default"]
        if part.get("type") == "string" and part.get("format") == "path":
            del part["format"]
    nodes = content["properties"]["custom_nodes"]
    in_short = {"type": "string", "description": "Git URL, or a local directory, of the node."}
    nodes["items"] = {"anyOf": [nodes["items"], in_short]}
    workflows = content["properties"]["workflows"]
    in_short = {"type": "string", "description": "The file of the workflow."}
    workflows["items"] = {"anyOf": [workflows["items"], in_short]}
    jobs = content["properties"]["jobs"]
    jobs["anyOf"] = [{"type": "boolean"}, *jobs["anyOf"]]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "machine.yaml",
        **content,
    }


def _mappings(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
    for inner in list(node.values()) if isinstance(node, dict) else node:
        if isinstance(inner, dict | list):
            yield from _mappings(inner)
